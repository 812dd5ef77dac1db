#include "allocator/plan/anytime.h"

#include <gtest/gtest.h>

#include <random>

#include "allocator/plan/lower_bound.h"
#include "allocator/plan/solver.h"
#include "allocator/plan/validator.h"
#include "tests/fakes/training_problem.h"
#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;
using reference::fixed_buffer;

// Solves, and has the answer judged by both validators and the bounds.
AnytimePlan solved(const Problem& problem, const AnytimeOptions& options = {}) {
  const auto result = solve_anytime(problem, options);
  EXPECT_TRUE(result.ok()) << result.error().message;
  const AnytimePlan& plan = result.value();
  const Status valid = validate(problem, plan.solution);
  EXPECT_TRUE(valid.ok()) << valid.error().message;
  EXPECT_TRUE(problem.buffers.size() > 500 || reference::is_valid(problem, plan.solution));
  EXPECT_GE(plan.lower_bound, max_load(problem));
  EXPECT_LE(plan.lower_bound, plan.solution.height);
  return plan;
}

AnytimeOptions within(double seconds, std::optional<Bytes> capacity = std::nullopt) {
  AnytimeOptions options;
  options.time_limit = seconds;
  options.capacity = capacity;
  return options;
}

// Rectangles cut from a rectangle: the bound is reached by the cut itself, and greedy orders are
// mostly far from it.
Problem cut_rectangle(std::mt19937_64& random, std::size_t buffers) {
  struct Piece {
    std::int64_t birth, death, low, high;
  };
  std::vector<Piece> pieces{{0, 1000, 0, 1 << 20}};
  const auto between = [&](std::int64_t low, std::int64_t high) {
    return low + 1 +
           static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low - 1));
  };
  while (pieces.size() < buffers) {
    const std::size_t i = random() % pieces.size();
    const Piece p = pieces[i];
    if (random() % 2 == 0 && p.death - p.birth > 1) {
      const std::int64_t at = between(p.birth, p.death);
      pieces[i].death = at;
      pieces.push_back({at, p.death, p.low, p.high});
    } else if (p.high - p.low > 1) {
      const std::int64_t at = between(p.low, p.high);
      pieces[i].high = at;
      pieces.push_back({p.birth, p.death, at, p.high});
    }
  }
  Problem problem;
  for (const Piece& p : pieces) problem.buffers.push_back(buffer(p.high - p.low, p.birth, p.death));
  return problem;
}

TEST(Anytime, AnEmptyProblemIsOptimalAtZero) {
  const AnytimePlan plan = solved({});
  EXPECT_EQ(plan.solution.height, Bytes{0});
  EXPECT_EQ(plan.status, PlanStatus::kOptimal);
}

TEST(Anytime, TouchingZeroSizedEqualAndHugeBuffersAreOptimal) {
  const std::int64_t exa = std::int64_t{1} << 60;
  EXPECT_EQ(solved({{buffer(8, 0, 5), buffer(8, 5, 9)}}).solution.height, Bytes{8});
  EXPECT_EQ(solved({{buffer(0, 0, 5), buffer(0, 0, 5)}}).solution.height, Bytes{0});
  EXPECT_EQ(solved({{buffer(8, 3, 4), buffer(8, 3, 4), buffer(8, 3, 4)}}).solution.height,
            Bytes{24});
  EXPECT_EQ(solved({{buffer(exa, 0, 2), buffer(exa, 1, 3), buffer(exa, 2, 4)}}).solution.height,
            Bytes{2 * exa});
}

TEST(Anytime, RefusesWhatCheckRefusesAndNegativeCapacities) {
  const auto clash = solve_anytime({{fixed_buffer(8, 0, 5, 0), fixed_buffer(8, 4, 9, 7)}});
  ASSERT_FALSE(clash.ok());
  EXPECT_EQ(clash.error().code, ErrorCode::kInfeasible);
  const auto negative = solve_anytime({{buffer(1, 0, 5)}}, within(1, Bytes{-1}));
  ASSERT_FALSE(negative.ok());
  EXPECT_EQ(negative.error().code, ErrorCode::kInvalidArgument);
}

// What brute force says of a random problem of a few buffers, every kind of rule among them.
class AnytimeAgainstBruteForce : public testing::TestWithParam<int> {};

TEST_P(AnytimeAgainstBruteForce, TheOptimumIsFoundAndProvedAndOneLessIsProvedImpossible) {
  const bool has_fixed = GetParam() % 2 == 1;
  const bool has_alignment = GetParam() / 2 == 1;
  std::mt19937_64 random(static_cast<std::uint64_t>(31 + GetParam()));
  // Without these rules few small problems have an optimum above the load.
  const int every = has_fixed || has_alignment ? 8 : 2;
  int above_load = 0;
  for (int i = 0; i < 200; ++i) {
    Problem problem = reference::random_problem(random, {.buffers = i % every == 0 ? 7U : 5U,
                                                         .ticks = 7,
                                                         .max_size = 6,
                                                         .has_alignment = has_alignment});
    if (has_fixed) {
      Buffer& fixed = problem.buffers[0];
      fixed.fixed = Offset{static_cast<std::int64_t>(random() % 3) * fixed.alignment.value};
    }
    const std::int64_t optimum = reference::optimal_height(problem);
    const AnytimePlan plan = solved(problem);
    EXPECT_EQ(plan.solution.height, Bytes{optimum});
    EXPECT_EQ(plan.status, PlanStatus::kOptimal);
    EXPECT_EQ(plan.lower_bound, plan.solution.height);
    if (optimum == 0) continue;
    const AnytimePlan tight = solved(problem, within(10, Bytes{optimum - 1}));
    EXPECT_EQ(tight.status, PlanStatus::kInfeasible);
    EXPECT_GT(tight.lower_bound, Bytes{optimum - 1});
    const AnytimePlan exact = solved(problem, within(10, Bytes{optimum}));
    EXPECT_EQ(exact.solution.height, Bytes{optimum});
    above_load += Bytes{optimum} > max_load(problem) ? 1 : 0;
  }
  EXPECT_GT(above_load, 0);  // the search had something to prove
}

INSTANTIATE_TEST_SUITE_P(FixedAndAlignment, AnytimeAgainstBruteForce, testing::Range(0, 4));

TEST(Anytime, BuffersWithGapsShareTheirPlace) {
  // Two combs whose teeth interlock, and a lid on both.
  Problem problem{{buffer(8, 0, 1), buffer(8, 0, 1), buffer(4, 0, 40)}};
  problem.buffers[0].live = {};
  problem.buffers[1].live = {};
  for (std::int64_t t = 0; t < 40; t += 4) {
    problem.buffers[0].live.push_back({Tick{t}, Tick{t + 2}});
    problem.buffers[1].live.push_back({Tick{t + 2}, Tick{t + 4}});
  }
  EXPECT_EQ(solved(problem).solution.height, Bytes{12});
}

TEST(Anytime, CutRectanglesArePutTogetherAgain) {
  std::mt19937_64 random(32);
  for (int i = 0; i < 12; ++i) {
    const Problem problem = cut_rectangle(random, 60);
    const AnytimePlan plan = solved(problem, within(20));
    EXPECT_EQ(plan.status, PlanStatus::kOptimal) << "rectangle " << i;
    EXPECT_EQ(plan.solution.height, Bytes{1 << 20});
  }
}

TEST(Anytime, ATrainingIterationIsAtTheBound) {
  const Problem problem = fakes::training_problem({});
  EXPECT_EQ(solved(problem).status, PlanStatus::kOptimal);
}

TEST(Anytime, ThePlanDoesNotDependOnWhichThreadIsQuick) {
  std::mt19937_64 random(33);
  for (int i = 0; i < 4; ++i) {
    const Problem problem = cut_rectangle(random, 50);
    AnytimeOptions options = within(30);
    options.threads = 3;
    const AnytimePlan first = solved(problem, options);
    EXPECT_EQ(first.status, PlanStatus::kOptimal);
    EXPECT_EQ(first.solution, solved(problem, options).solution);
  }
}

TEST(Anytime, ProgressOnlyEverImprovesAndEndsAtTheAnswer) {
  std::mt19937_64 random(34);
  const Problem problem =
      reference::random_problem(random, {.buffers = 120, .ticks = 50, .max_size = 90});
  AnytimeOptions options = within(0.5);
  std::vector<PlanProgress> reports;
  options.on_progress = [&](const PlanProgress& progress) { reports.push_back(progress); };
  const AnytimePlan plan = solved(problem, options);
  ASSERT_FALSE(reports.empty());
  for (std::size_t i = 1; i < reports.size(); ++i) {
    EXPECT_LE(reports[i].height, reports[i - 1].height);
    EXPECT_GE(reports[i].lower_bound, reports[i - 1].lower_bound);
    EXPECT_GE(reports[i].seconds, reports[i - 1].seconds);
  }
  EXPECT_EQ(reports.back().height, plan.solution.height);
  EXPECT_EQ(reports.back().lower_bound, plan.lower_bound);
}

TEST(Anytime, StopsWhenToldWithAPlanInHand) {
  std::mt19937_64 random(35);
  const Problem problem = reference::random_problem(random, {.buffers = 200, .ticks = 90});
  AnytimeOptions options = within(60);
  options.should_stop = [] { return true; };
  const AnytimePlan plan = solved(problem, options);
  EXPECT_LT(plan.seconds, 5);
}

TEST(Anytime, ACapacityThatIsMetEndsTheSearch) {
  std::mt19937_64 random(36);
  const Problem problem = cut_rectangle(random, 80);
  const AnytimePlan plan = solved(problem, within(30, Bytes{2 << 20}));
  EXPECT_LE(plan.solution.height, Bytes{2 << 20});
  EXPECT_LT(plan.seconds, 5);
  const AnytimePlan below = solved(problem, within(30, Bytes{(1 << 20) - 1}));
  EXPECT_EQ(below.status, PlanStatus::kInfeasible);  // the load says so, without a search
}

}  // namespace
}  // namespace ebbtide
