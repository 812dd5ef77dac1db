#include "allocator/plan/windowed.h"

#include <gtest/gtest.h>

#include <random>

#include "allocator/plan/arenas.h"
#include "allocator/plan/lower_bound.h"
#include "allocator/plan/solver.h"
#include "allocator/plan/validator.h"
#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;

constexpr std::int64_t kTicks = 30;

Problem random_windows(std::mt19937_64& random, std::size_t buffers, bool has_alignment) {
  Problem problem = reference::random_problem(
      random, {.buffers = buffers, .ticks = kTicks, .has_alignment = has_alignment});
  for (Buffer& one : problem.buffers) {
    const Interval life = one.live.back();
    const std::int64_t length = life.death - life.birth;
    if (length < 3 || one.size < Bytes{4} || random() % 2 == 0) continue;
    const auto from = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(length - 1));
    const std::int64_t half = one.size.value / 2;
    const Interval when{life.birth + from, life.death};
    const bool is_low = random() % 2 == 0;
    one.windows.push_back({when, Bytes{is_low ? 0 : half}, is_low ? Bytes{half} : one.size});
  }
  return problem;
}

AnytimeOptions within(double seconds) {
  AnytimeOptions options;
  options.time_limit = seconds;
  return options;
}

TEST(Windows, ABufferLiesWhereAnotherOneIsNotInUse) {
  // a gives its upper half back at 5; b, as large as that half, is born then.
  Problem problem{{buffer(8, 0, 10), buffer(4, 5, 10)}};
  problem.buffers[0].windows = {{{{5}, {10}}, Bytes{0}, Bytes{4}}};
  ASSERT_TRUE(check(problem).ok());
  EXPECT_EQ(max_load(problem), Bytes{8});
  const AnytimePlan plan = solve_anytime(problem, within(5)).value();
  EXPECT_EQ(plan.solution.height, Bytes{8});
  EXPECT_EQ(plan.status, PlanStatus::kOptimal);
  EXPECT_EQ(plan.solution.offsets[1], Offset{4});
  EXPECT_TRUE(validate(problem, plan.solution).ok());
}

TEST(Windows, ALowerBufferMayReachUnderAHigherOne) {
  // a is in use above 4 only, in [5, 10): b fits below that although a begins at 0.
  Problem problem{{buffer(8, 0, 10), buffer(4, 5, 10)}};
  problem.buffers[0].windows = {{{{5}, {10}}, Bytes{4}, Bytes{8}}};
  EXPECT_EQ(solve_anytime(problem, within(5)).value().solution.height, Bytes{8});
}

TEST(Windows, PlansAreValidNoHigherThanForWholeBuffersAndNoLowerThanTheBound) {
  std::mt19937_64 random(61);
  int lower = 0;
  for (int i = 0; i < 16; ++i) {
    const Problem problem = random_windows(random, 12 + static_cast<std::size_t>(i), i % 2 == 0);
    ASSERT_TRUE(check(problem).ok());
    const AnytimePlan plan = solve_anytime(problem, within(0.15)).value();
    ASSERT_TRUE(validate(problem, plan.solution).ok());
    ASSERT_TRUE(reference::are_apart(problem, plan.solution.offsets, kTicks + 1));
    EXPECT_GE(plan.solution.height, plan.lower_bound);
    EXPECT_EQ(plan.status == PlanStatus::kOptimal, plan.solution.height == plan.lower_bound);
    SolveOptions quick;
    quick.improvement_steps = 0;
    const Bytes whole = solve(problem, quick).value().height;
    EXPECT_LE(plan.solution.height, whole);
    lower += plan.solution.height < whole ? 1 : 0;
  }
  EXPECT_GE(lower, 8);
}

TEST(Windows, TheValidatorAgreesWithTheReferenceOnDamagedPlans) {
  std::mt19937_64 random(62);
  int invalid = 0;
  for (int i = 0; i < 20; ++i) {
    const Problem problem = random_windows(random, 8, false);
    const Solution solution = solve(problem).value();
    for (int k = 0; k < 10; ++k) {
      Solution damaged = solution;
      damaged.offsets[random() % 8].value = static_cast<std::int64_t>(random() % 4096);
      damaged.height = Bytes{1 << 20};
      const bool is_valid = reference::are_apart(problem, damaged.offsets, kTicks + 1);
      EXPECT_EQ(validate(problem, damaged).ok(), is_valid);
      invalid += is_valid ? 0 : 1;
    }
  }
  EXPECT_GE(invalid, 20);
}

TEST(Windows, OutsideTheLifeOrTheSizeAreRefused) {
  Problem problem{{buffer(8, 0, 10)}};
  for (const Window& wrong :
       {Window{{{5}, {11}}, Bytes{0}, Bytes{4}}, Window{{{5}, {5}}, Bytes{0}, Bytes{4}},
        Window{{{5}, {9}}, Bytes{4}, Bytes{4}}, Window{{{5}, {9}}, Bytes{0}, Bytes{9}}}) {
    problem.buffers[0].windows = {wrong};
    EXPECT_EQ(check(problem).error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(Arenas, AreEachAsLowAsIfTheOthersWereNotThere) {
  std::mt19937_64 random(63);
  for (int i = 0; i < 4; ++i) {
    Problem problem = reference::random_problem(random, {.buffers = 60, .ticks = kTicks});
    for (Buffer& one : problem.buffers) one.arena = static_cast<std::uint32_t>(random() % 3);
    const ArenasPlan plan = solve_arenas(problem, within(0.1)).value();
    ASSERT_TRUE(validate(problem, plan.solution).ok());
    ASSERT_TRUE(reference::are_apart(problem, plan.solution.offsets, kTicks + 1));
    const auto heights = arena_heights(problem, plan.solution.offsets);
    const auto arenas = split_arenas(problem);
    ASSERT_EQ(plan.arenas.size(), arenas.size());
    Bytes sum{0};
    for (std::size_t a = 0; a < arenas.size(); ++a) {
      EXPECT_EQ(heights[a], plan.arenas[a].height);
      EXPECT_EQ(plan.arenas[a].lower_bound >= max_load(arenas[a].problem), true);
      sum += heights[a];
    }
    EXPECT_EQ(plan.height(), sum);
    EXPECT_EQ(plan.solution.height, *std::max_element(heights.begin(), heights.end()));
  }
}

TEST(Arenas, EachMayHaveACapacityAndOneThatDoesNotFitSpeaksForAll) {
  Problem problem{{buffer(8, 0, 4), buffer(4, 0, 4), buffer(16, 0, 4)}};
  problem.buffers[2].arena = 1;
  const std::vector<std::optional<Bytes>> enough{Bytes{12}, Bytes{16}};
  EXPECT_EQ(solve_arenas(problem, within(1), enough).value().status(), PlanStatus::kOptimal);
  const std::vector<std::optional<Bytes>> small{std::nullopt, Bytes{15}};
  const ArenasPlan plan = solve_arenas(problem, within(1), small).value();
  EXPECT_EQ(plan.status(), PlanStatus::kInfeasible);
  EXPECT_EQ(plan.arenas[0].status, PlanStatus::kOptimal);
}

TEST(Arenas, AreRefusedWhereOneIsExpectedAndBeyondTheMost) {
  Problem problem{{buffer(8, 0, 4), buffer(4, 0, 4)}};
  problem.buffers[1].arena = 1;
  EXPECT_EQ(solve_anytime(problem).error().code, ErrorCode::kInvalidArgument);
  problem.buffers[1].arena = kMostArenas;
  EXPECT_EQ(solve_arenas(problem, {}).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace ebbtide
