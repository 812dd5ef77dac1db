#include "swap/copy_clock.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/fakes/fake_copy_device.h"

namespace ebbtide {
namespace {

using fakes::FakeCopyDevice;
using fakes::kCompute;

// One step of the fake device is one nanosecond.
class CopyClockTest : public testing::Test {
 protected:
  CopyClockTest() { copies_ = device_.create_stream().value(); }
  ~CopyClockTest() override { device_.destroy_stream(copies_); }

  EventId recorded(StreamId stream) {
    const EventId event = events_.take().value();
    EXPECT_TRUE(device_.record(event, stream).ok());
    return event;
  }
  void work(StreamId stream, int steps) {
    for (int i = 0; i < steps; ++i) device_.launch(stream, [] {});
  }
  void run() {
    while (device_.step()) {
    }
  }

  FakeCopyDevice device_{FakeCopyDevice::Options{.most_steps_per_call = 0}};
  StreamId copies_;
  EventPool events_{device_};
  CopyClock clock_{device_, events_};
  CopyTime sum_;
};

TEST_F(CopyClockTest, ACopyThatNobodyWaitedForIsHidden) {
  const EventId start = recorded(copies_);
  work(copies_, 10);
  const EventId end = recorded(copies_);
  run();
  clock_.add({start, end, {}}, sum_);
  clock_.collect();
  EXPECT_EQ(sum_.copying_ns, 11);
  EXPECT_EQ(sum_.exposed_ns, 0);
}

TEST_F(CopyClockTest, WhatTheComputeStreamStoodStillForIsExposed) {
  const EventId start = recorded(copies_);
  work(copies_, 10);
  run();
  const EventId reached = recorded(kCompute);
  run();
  work(copies_, 4);
  const EventId end = recorded(copies_);
  run();
  clock_.add({start, end, reached}, sum_);
  clock_.collect();
  EXPECT_EQ(sum_.copying_ns, 16);
  EXPECT_EQ(sum_.exposed_ns, 5);
}

TEST_F(CopyClockTest, MoreThanTheWholeCopyIsNotExposed) {
  const EventId reached = recorded(kCompute);
  run();
  work(copies_, 20);
  const EventId start = recorded(copies_);
  const EventId end = recorded(copies_);
  run();
  clock_.add({start, end, reached}, sum_);
  clock_.collect();
  EXPECT_EQ(sum_.exposed_ns, sum_.copying_ns);
}

TEST_F(CopyClockTest, WhatIsUnderWayIsNotWaitedForAndCountsLater) {
  const EventId start = recorded(copies_);
  const EventId end = recorded(copies_);
  clock_.add({start, end, {}}, sum_);
  clock_.collect();
  EXPECT_EQ(sum_.copying_ns, 0);
  EXPECT_EQ(device_.host_waits(), 0);
  run();
  clock_.collect();
  EXPECT_EQ(sum_.copying_ns, 1);
}

TEST_F(CopyClockTest, WhatIsDoneIsLookedUpNowAndThen) {
  for (std::uint64_t i = 1; i <= CopyClock::kLookEvery; ++i) {
    const EventId start = recorded(copies_);
    const EventId end = recorded(copies_);
    run();
    clock_.add({start, end, {}}, sum_);
    EXPECT_EQ(sum_.copying_ns > 0, i == CopyClock::kLookEvery) << i;
  }
}

TEST_F(CopyClockTest, CopiesBeyondTheMostAreCountedInsteadOfTimed) {
  for (std::size_t i = 0; i <= CopyClock::kMostPending; ++i) {
    const EventId start = recorded(copies_);
    clock_.add({start, recorded(copies_), {}}, sum_);
  }
  EXPECT_EQ(sum_.unmeasured, 1);
  run();
}

}  // namespace
}  // namespace ebbtide
