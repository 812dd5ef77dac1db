#include "dryrun/core/busy_fabric.h"

#include <gtest/gtest.h>

namespace ebbtide::dryrun {
namespace {

TEST(BusyFabric, WorkBesideNothingTakesItsTime) {
  BusyFabric fabric;
  fabric.take(5, 6, 0.25);
  EXPECT_DOUBLE_EQ(fabric.end_of(1, 4), 5);
  EXPECT_DOUBLE_EQ(fabric.end_of(6, 2), 8);
}

TEST(BusyFabric, WorkBesideACollectiveHasTheRestOfTheDevice) {
  // 2 s of a half of the device: 1 s of work; then a half of the last quarter of a second
  BusyFabric fabric;
  fabric.take(1, 3, 0.5);
  EXPECT_DOUBLE_EQ(fabric.end_of(0, 3), 4);
  EXPECT_DOUBLE_EQ(fabric.end_of(2, 0.25), 2.5);
}

TEST(BusyFabric, TwoAtOnceCountOnce) {
  BusyFabric fabric;
  fabric.take(0, 2, 0.5);
  fabric.take(1, 4, 0.5);
  EXPECT_DOUBLE_EQ(fabric.end_of(0, 2), 4);
}

}  // namespace
}  // namespace ebbtide::dryrun
