#include "dryrun/core/memory_curve.h"

#include <gtest/gtest.h>

namespace ebbtide::dryrun {
namespace {

TEST(MemoryCurve, KeepsWhatChangesByDevice) {
  MemoryCurve curve;
  curve.add({.device = 0, .time = 1, .live = 10, .held = 20});
  curve.add({.device = 1, .time = 1, .live = 10, .held = 20});
  curve.add({.device = 0, .time = 2, .live = 10, .held = 20});
  curve.add({.device = 0, .time = 3, .live = 11, .held = 20});
  const auto all = curve.since(0);
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[2].live, 11);
  EXPECT_EQ(curve.since(2).size(), 1U);
}

TEST(MemoryCurve, TimeDoesNotRunBackwards) {
  MemoryCurve curve;
  curve.add({.time = 5, .live = 1});
  curve.add({.time = 4, .live = 2});
  EXPECT_EQ(curve.since(0).back().time, 5);
}

}  // namespace
}  // namespace ebbtide::dryrun
