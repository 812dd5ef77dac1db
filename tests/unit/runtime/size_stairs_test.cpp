#include "allocator/runtime/size_stairs.h"

#include <gtest/gtest.h>

namespace ebbtide {
namespace {

// 7168 bytes for each row of 1024, as the sum over the rows of a GPT-2 projection's gradient takes.
Bytes scratch(std::int64_t rows) { return Bytes{7168 * align_up(rows, 1024)}; }

SizeSample at(std::int64_t rows) { return {rows, scratch(rows)}; }

bool contains(const std::vector<Bytes>& sizes, Bytes size) {
  return std::find(sizes.begin(), sizes.end(), size) != sizes.end();
}

TEST(SizesOnStairs, TwoSizesTellTheStep) {
  const std::vector<SizeSample> samples{at(47030), at(32436)};
  EXPECT_TRUE(contains(sizes_on_stairs(samples, 20758), scratch(20758)));
}

TEST(SizesOnStairs, MoreSizesLeaveFewerSteps) {
  const std::vector<SizeSample> few{at(47030), at(32436)};
  const std::vector<SizeSample> many{at(47030), at(32436), at(31538), at(50376), at(20758), at(87288)};
  EXPECT_EQ(sizes_on_stairs(many, 68436), std::vector<Bytes>{scratch(68436)});
  EXPECT_GE(sizes_on_stairs(few, 68436).size(), sizes_on_stairs(many, 68436).size());
}

TEST(SizesOnStairs, AFloorIsTheSizeOfAllThatIsSmaller) {
  const Bytes floor{132 << 20};
  const std::vector<SizeSample> samples{{32436, floor}, {20758, floor}, {98396, Bytes{2048 * align_up(98396, 1024)}}};
  EXPECT_TRUE(contains(sizes_on_stairs(samples, 87288), Bytes{2048 * align_up(87288, 1024)}));
  EXPECT_EQ(sizes_on_stairs(samples, 1000), std::vector<Bytes>{floor});
}

TEST(SizesOnStairs, OneSizeTellsNothing) {
  EXPECT_TRUE(sizes_on_stairs({}, 1000).empty());
  const std::vector<SizeSample> one{at(47030)};
  EXPECT_TRUE(sizes_on_stairs(one, 20758).empty());
  const std::vector<SizeSample> same{{47030, Bytes{1 << 20}}, {32436, Bytes{1 << 20}}};
  EXPECT_TRUE(sizes_on_stairs(same, 20758).empty());
}

TEST(SizesOnStairs, WhatGrowsByTheElementIsOnNone) {
  const std::vector<SizeSample> samples{{47030, Bytes{47030 * 8192}}, {32436, Bytes{32436 * 8192}}};
  EXPECT_TRUE(sizes_on_stairs(samples, 20758).empty());
}

}  // namespace
}  // namespace ebbtide
