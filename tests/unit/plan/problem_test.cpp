#include "allocator/plan/problem.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;
using reference::fixed_buffer;

Interval ticks(std::int64_t birth, std::int64_t death) { return {Tick{birth}, Tick{death}}; }

std::string refusal(Problem problem) {
  const Status status = check(problem);
  return status.ok() ? "" : status.error().message;
}

TEST(Check, CallsBuffersByTheNamesGiven) {
  const std::vector<std::string> names{"tensor a", "tensor b"};
  const Problem clash{{fixed_buffer(8, 0, 2, 0), fixed_buffer(8, 1, 3, 4)}};
  EXPECT_EQ(check(clash, names).error().message,
            "tensor a and tensor b are fixed at overlapping offsets and live together");
}

TEST(Interval, TouchingOnesDoNotOverlap) {
  EXPECT_FALSE(ticks(0, 3).overlaps(ticks(3, 5)));
  EXPECT_TRUE(ticks(0, 4).overlaps(ticks(3, 5)));
  EXPECT_TRUE(ticks(0, 9).overlaps(ticks(3, 5)));
  EXPECT_FALSE(ticks(3, 3).is_valid());
}

TEST(LiveRanges, KeepTheirIntervalsBeyondTheInlineCapacity) {
  LiveRanges live;
  for (std::int64_t i = 0; i < 5; ++i) {
    live.push_back(ticks(10 * i, 10 * i + 1));
    ASSERT_EQ(live.size(), static_cast<std::size_t>(i + 1));
    EXPECT_EQ(live.front(), ticks(0, 1));
    EXPECT_EQ(live.back(), ticks(10 * i, 10 * i + 1));
  }
  const LiveRanges copy = live;
  EXPECT_EQ(copy, live);
  EXPECT_TRUE(copy.is_valid());
}

TEST(LiveRanges, OverlapIsFoundInAnyPairOfIntervals) {
  const LiveRanges a{ticks(0, 2), ticks(10, 12), ticks(20, 22)};
  EXPECT_FALSE(overlaps(a, LiveRanges{ticks(2, 10), ticks(12, 20)}));
  EXPECT_TRUE(overlaps(a, LiveRanges{ticks(2, 10), ticks(21, 30)}));
}

TEST(Wrapping, LifetimeThatEndsInTheNextIterationIsCutInTwo) {
  const LiveRanges expected{ticks(0, 3), ticks(7, 10)};
  EXPECT_EQ(wrapping(Bytes{8}, Tick{7}, Tick{3}, Tick{10}).live, expected);
  EXPECT_EQ(wrapping(Bytes{8}, Tick{7}, Tick{13}, Tick{10}).live, expected);
}

TEST(Wrapping, LifetimeInsideTheIterationStaysWhole) {
  EXPECT_EQ(wrapping(Bytes{8}, Tick{2}, Tick{5}, Tick{10}).live, (LiveRanges{ticks(2, 5)}));
  EXPECT_EQ(wrapping(Bytes{8}, Tick{2}, Tick{10}, Tick{10}).live, (LiveRanges{ticks(2, 10)}));
}

TEST(Wrapping, DeathAtTheBoundaryLeavesNoEmptyInterval) {
  EXPECT_EQ(wrapping(Bytes{8}, Tick{2}, Tick{0}, Tick{10}).live, (LiveRanges{ticks(2, 10)}));
}

TEST(Wrapping, WholePeriodOrMoreIsLiveThroughout) {
  for (const std::int64_t death : {4, 14, 15, 40}) {
    EXPECT_EQ(wrapping(Bytes{8}, Tick{4}, Tick{death}, Tick{10}).live, (LiveRanges{ticks(0, 10)}));
  }
}

TEST(Check, AcceptsAnEmptyProblemAndZeroSizes) {
  EXPECT_EQ(refusal({}), "");
  EXPECT_EQ(refusal({{buffer(0, 0, 1), buffer(5, 1, 2, 3)}}), "");
}

TEST(Check, NamesTheBufferAndTheRule) {
  EXPECT_EQ(refusal({{buffer(1, 0, 1), buffer(-2, 0, 1)}}), "buffer 1 has a negative size (-2)");
  EXPECT_EQ(refusal({{buffer(1, 0, 1, 0)}}), "buffer 0 has alignment 0, it must be positive");
  EXPECT_EQ(refusal({{Buffer{}}}), "buffer 0 is never live");
  const std::string live = "buffer 0 has live intervals that are empty, unsorted or overlapping";
  EXPECT_EQ(refusal({{buffer(1, 3, 3)}}), live);
  Buffer unsorted = buffer(1, 5, 6);
  unsorted.live.push_back(ticks(0, 1));
  EXPECT_EQ(refusal({{unsorted}}), live);
}

TEST(Check, RefusesFixedOffsetsThatAreNegativeOrMisaligned) {
  EXPECT_EQ(refusal({{fixed_buffer(1, 0, 1, -8)}}), "buffer 0 is fixed at a negative offset (-8)");
  Buffer odd = fixed_buffer(1, 0, 1, 100);
  odd.alignment = Bytes{64};
  EXPECT_EQ(refusal({{odd}}),
            "buffer 0 is fixed at offset 100, not a multiple of its alignment 64");
}

TEST(Check, FixedBuffersThatOverlapAreInfeasible) {
  const Status status = check({{fixed_buffer(8, 0, 5, 0), fixed_buffer(8, 4, 9, 7)}});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kInfeasible);
  EXPECT_EQ(refusal({{fixed_buffer(8, 0, 4, 0), fixed_buffer(8, 4, 9, 7)}}), "");
}

TEST(Check, SumsThatCouldOverflowAreRefusedAndLargeOnesAreNot) {
  const std::int64_t exa = std::int64_t{1} << 60;
  EXPECT_EQ(refusal({{buffer(exa, 0, 1), buffer(exa, 0, 1), buffer(exa, 0, 1)}}), "");
  EXPECT_EQ(refusal({{buffer(exa, 0, 1), buffer(exa, 0, 1), buffer(exa, 0, 1), buffer(exa, 0, 1)}}),
            "buffer 3 makes the sum of all sizes exceed 2^62 bytes");
  EXPECT_NE(refusal({{buffer(std::numeric_limits<std::int64_t>::max(), 0, 1)}}), "");
}

}  // namespace
}  // namespace ebbtide
