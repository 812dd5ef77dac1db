#include "allocator/plan/solver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "allocator/plan/lower_bound.h"
#include "allocator/plan/validator.h"
#include "tests/fakes/training_problem.h"
#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;
using reference::fixed_buffer;

SolveOptions effort(std::int64_t steps) {
  SolveOptions options;
  options.improvement_steps = steps;
  return options;
}

// Solves, and has the answer judged by both validators, the lower bound, and place().
Solution solved(const Problem& problem, const SolveOptions& options = {}) {
  const auto result = solve(problem, options);
  EXPECT_TRUE(result.ok()) << result.error().message;
  const Solution& solution = result.value();
  const Status valid = validate(problem, solution);
  EXPECT_TRUE(valid.ok()) << valid.error().message;
  EXPECT_TRUE(problem.buffers.size() > 500 || reference::is_valid(problem, solution));
  EXPECT_GE(solution.height, max_load(problem));
  EXPECT_EQ(place(problem, solution.order), solution);
  return solution;
}

TEST(Solver, AnEmptyProblemHasHeightZero) { EXPECT_EQ(solved({}).height, Bytes{0}); }

TEST(Solver, TouchingLifetimesShareAnAddress) {
  const Solution solution = solved({{buffer(8, 0, 5), buffer(8, 5, 9)}});
  EXPECT_EQ(solution.height, Bytes{8});
  EXPECT_EQ(solution.offsets[0], solution.offsets[1]);
}

TEST(Solver, EqualBuffersInOneTickAreStacked) {
  EXPECT_EQ(solved({{buffer(8, 0, 1), buffer(8, 0, 1), buffer(8, 0, 1)}}).height, Bytes{24});
}

TEST(Solver, ZeroSizesTakeNoRoom) {
  EXPECT_EQ(solved({{buffer(0, 0, 5), buffer(8, 0, 5), buffer(0, 2, 3)}}).height, Bytes{8});
}

TEST(Solver, AWrappingBufferMeetsBothEndsOfTheIterationAndLeavesTheMiddleFree) {
  const Problem problem{{wrapping(Bytes{8}, Tick{7}, Tick{3}, Tick{10}), buffer(8, 3, 7),
                         buffer(4, 0, 1), buffer(4, 9, 10)}};
  EXPECT_EQ(solved(problem).height, Bytes{12});
}

TEST(Solver, SizesOfTwoToTheSixtyDoNotOverflow) {
  const std::int64_t exa = std::int64_t{1} << 60;
  const Problem problem{{buffer(exa, 0, 2), buffer(exa, 1, 3), buffer(exa, 2, 4)}};
  EXPECT_EQ(solved(problem).height, Bytes{2 * exa});
}

TEST(Solver, TicksBeyondThirtyTwoBitsKeepTheirOrder) {
  const std::int64_t far = std::int64_t{1} << 62;
  const Problem problem{{buffer(8, -far, 0), buffer(8, 0, far), buffer(4, -far, far)}};
  EXPECT_EQ(solved(problem).height, Bytes{12});
}

TEST(Solver, OffsetsAreAligned) {
  const Problem problem{{buffer(3, 0, 5), buffer(5, 0, 5, 512), buffer(7, 0, 5, 48)}};
  const Solution solution = solved(problem);
  EXPECT_EQ(solution.offsets[1].value % 512, 0);
  EXPECT_EQ(solution.offsets[2].value % 48, 0);
}

TEST(Solver, FixedBuffersStayAndOthersGoAround) {
  const Problem problem{{buffer(10, 0, 9), fixed_buffer(4, 0, 9, 8), buffer(8, 0, 9)}};
  const Solution solution = solved(problem);
  EXPECT_EQ(solution.offsets[1], Offset{8});
  EXPECT_EQ(solution.offsets[2], Offset{0});
  EXPECT_EQ(solution.height, Bytes{22});
}

TEST(Solver, RefusesWhatCheckRefuses) {
  const auto clash = solve({{fixed_buffer(8, 0, 5, 0), fixed_buffer(8, 4, 9, 7)}});
  ASSERT_FALSE(clash.ok());
  EXPECT_EQ(clash.error().code, ErrorCode::kInfeasible);
  const auto negative = solve({{buffer(-1, 0, 5)}});
  ASSERT_FALSE(negative.ok());
  EXPECT_EQ(negative.error().code, ErrorCode::kInvalidArgument);
}

TEST(Solver, RefusesOrdersThatAreNotOrders) {
  const Problem problem{{buffer(8, 0, 5), buffer(8, 0, 5)}};
  for (const std::vector<std::uint32_t>& bad :
       {std::vector<std::uint32_t>{0}, {0, 0}, {0, 2}, {0, 1, 1}}) {
    SolveOptions options;
    options.warm_orders = {bad};
    EXPECT_FALSE(solve(problem, options).ok());
  }
  SolveOptions options;
  options.first = {1, 1};
  EXPECT_FALSE(solve(problem, options).ok());
}

// All ways to choose `count` of the kinds, with repetition, in non-descending order.
void for_each_problem(const std::vector<Buffer>& kinds, std::size_t count, std::size_t from,
                      Problem& problem, const std::function<void(const Problem&)>& visit) {
  if (problem.buffers.size() == count) return visit(problem);
  for (std::size_t i = from; i < kinds.size(); ++i) {
    problem.buffers.push_back(kinds[i]);
    for_each_problem(kinds, count, i, problem, visit);
    problem.buffers.pop_back();
  }
}

struct Score {
  int problems = 0;
  int optimal = 0;

  void judge(const Problem& problem, std::int64_t steps) {
    const std::int64_t height = solved(problem, effort(steps)).height.value;
    const bool meets_bound = height == max_load(problem).value;
    const std::int64_t optimum = meets_bound ? height : reference::optimal_height(problem);
    EXPECT_GE(height, optimum);
    ++problems;
    optimal += height == optimum ? 1 : 0;
  }
};

TEST(SolverAgainstBruteForce, AllProblemsOfUpToFourBuffersAreOptimal) {
  std::vector<Buffer> kinds;
  for (std::int64_t birth = 0; birth < 4; ++birth) {
    for (std::int64_t death = birth + 1; death <= 4; ++death) {
      for (const std::int64_t size : {1, 2}) kinds.push_back(buffer(size, birth, death));
    }
  }
  Score score;
  Problem problem;
  for (std::size_t count = 1; count <= 4; ++count) {
    for_each_problem(kinds, count, 0, problem, [&](const Problem& p) { score.judge(p, 1000); });
  }
  EXPECT_EQ(score.problems, 20 + 210 + 1540 + 8855);
  EXPECT_EQ(score.optimal, score.problems);
}

TEST(SolverAgainstBruteForce, AtLeastNineteenInTwentyRandomSmallProblemsAreOptimal) {
  std::mt19937_64 random(21);
  Score score;
  for (int i = 0; i < 800; ++i) {
    const std::size_t buffers = i % 8 == 0 ? 7 : 5;
    score.judge(
        reference::random_problem(
            random, {.buffers = buffers, .ticks = 6, .max_size = 5, .has_alignment = i % 2 == 0}),
        2000);
  }
  EXPECT_GE(score.optimal * 20, score.problems * 19);
}

TEST(Solver, RandomProblemsAreSolvedValidly) {
  std::mt19937_64 random(22);
  for (std::size_t i = 0; i < 60; ++i) {
    solved(reference::random_problem(random, {.buffers = 1 + i * 4}), effort(5000));
  }
}

TEST(Solver, FixedBuffersInRandomProblemsStayWhereTheyWere) {
  std::mt19937_64 random(23);
  for (int i = 0; i < 30; ++i) {
    Problem problem = reference::random_problem(random, {.buffers = 40});
    const Solution before = solved(problem, effort(2000));
    for (std::size_t k = 0; k < 40; k += 3) problem.buffers[k].fixed = before.offsets[k];
    const Solution after = solved(problem, effort(2000));
    for (std::size_t k = 0; k < 40; k += 3) EXPECT_EQ(after.offsets[k], before.offsets[k]);
  }
}

TEST(Solver, TheSameSeedGivesTheSameSolution) {
  std::mt19937_64 random(24);
  const Problem problem = reference::random_problem(random, {.buffers = 120, .ticks = 60});
  EXPECT_EQ(solved(problem, effort(20'000)), solved(problem, effort(20'000)));
}

TEST(Solver, MoreEffortIsNeverWorseThanGreedyOrders) {
  std::mt19937_64 random(25);
  for (int i = 0; i < 20; ++i) {
    const Problem problem = reference::random_problem(random, {.buffers = 80, .ticks = 60});
    EXPECT_LE(solved(problem, effort(20'000)).height, solved(problem, effort(0)).height);
  }
}

TEST(Solver, StopsWhenToldAndStillHasAPlan) {
  std::mt19937_64 random(26);
  const Problem problem = reference::random_problem(random, {.buffers = 200, .ticks = 90});
  int asked = 0;
  SolveOptions options = effort(std::int64_t{1} << 60);
  options.should_stop = [&] { return ++asked > 3; };
  solved(problem, options);
  EXPECT_LT(asked, 20);
}

TEST(Solver, AWarmOrderIsTriedFirst) {
  std::mt19937_64 random(27);
  const Problem problem = reference::random_problem(random, {.buffers = 120, .ticks = 60});
  const Solution before = solved(problem, effort(50'000));
  SolveOptions options;
  options.warm_orders = {before.order};
  options.should_stop = [] { return true; };
  EXPECT_EQ(solved(problem, options).height, before.height);
}

TEST(Solver, GoodEnoughEndsTheSearchEarly) {
  std::mt19937_64 random(28);
  const Problem problem = reference::random_problem(random, {.buffers = 120, .ticks = 60});
  SolveOptions options = effort(std::int64_t{1} << 60);
  options.good_enough = 2.0;
  const Solution solution = solved(problem, options);
  EXPECT_LE(solution.height.value, 2 * max_load(problem).value);
}

TEST(Solver, FirstBuffersKeepTheirOffsetsWhenOtherSizesChange) {
  std::mt19937_64 random(29);
  for (int round = 0; round < 20; ++round) {
    Problem problem = reference::random_problem(random, {.buffers = 60});
    SolveOptions options = effort(5000);
    options.first = {7, 3, 50, 21};
    const Solution before = solved(problem, options);
    for (std::uint32_t i = 0; i < 60; ++i) {
      const bool is_first =
          std::find(options.first.begin(), options.first.end(), i) != options.first.end();
      if (!is_first) problem.buffers[i].size = Bytes{problem.buffers[i].size.value * 3 + 64};
    }
    const Solution after = solved(problem, options);
    for (const std::uint32_t i : options.first) EXPECT_EQ(after.offsets[i], before.offsets[i]);
    EXPECT_TRUE(std::equal(options.first.begin(), options.first.end(), after.order.begin()));
  }
}

class SolverOnTraining : public testing::TestWithParam<bool> {};

TEST_P(SolverOnTraining, IsWithinThreeThousandthsOfTheBound) {
  const Problem problem = fakes::training_problem({.checkpointing = GetParam()});
  EXPECT_GT(problem.buffers.size(), 2000U);
  const double bound = static_cast<double>(max_load(problem).value);
  EXPECT_LE(static_cast<double>(solved(problem).height.value), 1.003 * bound);
}

TEST_P(SolverOnTraining, ResidentsFirstCostNoMoreThanThreeThousandths) {
  const Problem problem = fakes::training_problem({.layers = 8, .checkpointing = GetParam()});
  SolveOptions options;
  for (std::uint32_t i = 0; i < problem.buffers.size(); ++i) {
    if (problem.buffers[i].live.size() > 1) options.first.push_back(i);
  }
  EXPECT_GT(options.first.size(), 50U);
  const double bound = static_cast<double>(max_load(problem).value);
  EXPECT_LE(static_cast<double>(solved(problem, options).height.value), 1.003 * bound);
}

INSTANTIATE_TEST_SUITE_P(Checkpointing, SolverOnTraining, testing::Bool());

}  // namespace
}  // namespace ebbtide
