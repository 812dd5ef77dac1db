#include "allocator/plan/validator.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "allocator/plan/solver.h"
#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;
using reference::fixed_buffer;

Solution at(std::vector<std::int64_t> offsets, std::int64_t height) {
  Solution solution;
  for (const std::int64_t offset : offsets) solution.offsets.push_back({offset});
  solution.height = {height};
  return solution;
}

std::string fault(const Problem& problem, const Solution& solution) {
  const Status status = validate(problem, solution);
  if (status.ok()) return "";
  EXPECT_EQ(status.error().code, ErrorCode::kBadPlan);
  return status.error().message;
}

TEST(Validator, NamesBothBuffersOfAnOverlap) {
  const Problem problem{{buffer(8, 0, 5), buffer(4, 4, 9)}};
  EXPECT_EQ(fault(problem, at({0, 7}, 11)),
            "buffer 0 (size 8, offset 0) and buffer 1 (size 4, offset 7) "
            "live at the same tick and overlap");
  EXPECT_EQ(fault(problem, at({0, 8}, 12)), "");
}

TEST(Validator, TouchingLifetimesMayShareAnAddress) {
  EXPECT_EQ(fault({{buffer(8, 0, 5), buffer(8, 5, 9)}}, at({0, 0}, 8)), "");
}

TEST(Validator, SeesAnOverlapInTheSecondIntervalOfAWrappingBuffer) {
  const Problem problem{{wrapping(Bytes{8}, Tick{7}, Tick{3}, Tick{10}), buffer(8, 8, 9)}};
  EXPECT_NE(fault({problem}, at({0, 0}, 8)), "");
}

TEST(Validator, ZeroSizesShareAnything) {
  EXPECT_EQ(fault({{buffer(0, 0, 5), buffer(8, 0, 5)}}, at({4, 0}, 8)), "");
}

TEST(Validator, SeesABufferThatLiesInsideALowerNeighbourFarBelow) {
  // The newcomer's direct neighbours in offset order decide, whatever the order of birth.
  const Problem problem{{buffer(100, 0, 9), buffer(1, 1, 9), buffer(1, 2, 9)}};
  EXPECT_NE(fault(problem, at({0, 200, 50}, 300)), "");
}

TEST(Validator, RefusesWrongCountsHeightsAlignmentsAndFixedOffsets) {
  const Problem problem{{buffer(8, 0, 5, 4)}};
  EXPECT_EQ(fault(problem, at({}, 8)), "the plan has 0 offsets for 1 buffers");
  EXPECT_EQ(fault(problem, at({0}, 7)), "buffer 0 (size 8, offset 0) ends above the height 7");
  EXPECT_EQ(fault(problem, at({2}, 20)), "buffer 0 (size 8, offset 2) is not aligned to 4");
  EXPECT_EQ(fault(problem, at({-4}, 20)), "buffer 0 (size 8, offset -4) is at a negative offset");
  EXPECT_EQ(fault({{fixed_buffer(8, 0, 5, 16)}}, at({0}, 20)),
            "buffer 0 (size 8, offset 0) is not at its fixed offset 16");
}

TEST(Validator, OffsetsNearTheLargestIntegerDoNotOverflow) {
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  EXPECT_NE(fault({{buffer(8, 0, 5)}}, at({huge}, huge)), "");
  EXPECT_EQ(fault({{buffer(8, 0, 5)}}, at({huge - 8}, huge)), "");
}

TEST(Validator, AgreesWithTheReferenceOnSolvedAndOnMutatedPlans) {
  std::mt19937_64 random(11);
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    const Problem problem = reference::random_problem(random, {.buffers = 25, .max_size = 40});
    SolveOptions options;
    options.improvement_steps = 0;
    const auto solved = solve(problem, options);
    ASSERT_TRUE(solved.ok());
    ASSERT_TRUE(reference::is_valid(problem, solved.value()));
    ASSERT_TRUE(validate(problem, solved.value()).ok());
    Solution mutated = solved.value();
    const std::size_t victim = random() % mutated.offsets.size();
    mutated.offsets[victim].value += static_cast<std::int64_t>(random() % 200) - 100;
    const bool is_valid = reference::is_valid(problem, mutated);
    EXPECT_EQ(validate(problem, mutated).ok(), is_valid);
    refused += is_valid ? 0 : 1;
  }
  EXPECT_GT(refused, 150);
}

TEST(Validator, RefusesAHeightOneByteTooLow) {
  std::mt19937_64 random(12);
  const Problem problem = reference::random_problem(random, {});
  Solution solution = solve(problem).value();
  solution.height -= Bytes{1};
  EXPECT_NE(fault(problem, solution), "");
  EXPECT_FALSE(reference::is_valid(problem, solution));
}

}  // namespace
}  // namespace ebbtide
