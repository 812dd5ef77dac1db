#include "profiler/event_ring.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/unit/profiler/trace_samples.h"

namespace ebbtide {
namespace {

using testing_support::allocation;

std::vector<EventRecord> drain_all(EventRing& ring) {
  std::vector<EventRecord> events(ring.capacity());
  events.resize(ring.drain(events));
  return events;
}

TEST(EventRing, CapacityIsRoundedUpToAPowerOfTwo) {
  EXPECT_EQ(EventRing(1).capacity(), 2U);
  EXPECT_EQ(EventRing(2).capacity(), 2U);
  EXPECT_EQ(EventRing(5).capacity(), 8U);
  EXPECT_EQ(EventRing(8).capacity(), 8U);
}

TEST(EventRing, GivesTicksTimesAndThreadNumbers) {
  EventRing ring(8);
  ring.record(allocation(1, 10));
  EventRecord own = allocation(2, 20);
  own.time_ns = 77;
  own.thread = 99;
  ring.record(own);
  std::thread([&] { ring.record(allocation(3, 30)); }).join();
  const auto events = drain_all(ring);
  ASSERT_EQ(events.size(), 3U);
  for (std::uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(events[i].tick, i);
    EXPECT_EQ(events[i].address, i + 1);
    EXPECT_EQ(events[i].bytes, static_cast<std::int64_t>(10 * (i + 1)));
  }
  EXPECT_GT(events[0].time_ns, 0U);
  EXPECT_GE(events[2].time_ns, events[0].time_ns);
  EXPECT_EQ(events[1].time_ns, 77U);
  EXPECT_EQ(events[1].thread, 99U);
  EXPECT_NE(events[0].thread, 0U);
  EXPECT_NE(events[2].thread, 0U);
  EXPECT_NE(events[0].thread, events[2].thread);
}

TEST(EventRing, LeavesTimeOutWhenAskedTo) {
  EventRing ring(2, EventRing::TimeStamp::kOmitted);
  ring.record(allocation(1, 1));
  EXPECT_EQ(drain_all(ring)[0].time_ns, 0U);
}

TEST(EventRing, OverCapacityDropsTheNewestAndCountsThemExactly) {
  EventRing ring(16);
  for (std::uint64_t i = 0; i < 100; ++i) ring.record(allocation(i, 1));
  EXPECT_EQ(ring.recorded(), 16U);
  EXPECT_EQ(ring.lost(), 84U);
  const auto events = drain_all(ring);
  ASSERT_EQ(events.size(), 16U);
  for (std::uint64_t i = 0; i < 16; ++i) EXPECT_EQ(events[i].address, i);
  ring.record(allocation(500, 1));
  const auto later = drain_all(ring);
  ASSERT_EQ(later.size(), 1U);
  EXPECT_EQ(later[0].tick, 16U);
  EXPECT_EQ(later[0].address, 500U);
  EXPECT_TRUE(ring.is_valid());
}

TEST(EventRing, TheSmallestRingNeverOverwritesWhatIsNotRead) {
  EventRing ring(1);
  for (std::uint64_t i = 0; i < 5; ++i) ring.record(allocation(i, 1));
  EXPECT_EQ(ring.lost(), 3U);
  const auto events = drain_all(ring);
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].address, 0U);
  EXPECT_EQ(events[1].address, 1U);
}

TEST(EventRing, FourThreadsOverCapacityLoseExactlyTheExcess) {
  EventRing ring(1024);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (std::uint64_t i = 0; i < 1000; ++i) ring.record(allocation(i, 1));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ring.recorded(), 1024U);
  EXPECT_EQ(ring.lost(), 4000U - 1024U);
  EXPECT_EQ(drain_all(ring).size(), 1024U);
}

TEST(EventRing, DisabledRecordsNothingAndLosesNothing) {
  EventRing ring(4);
  ring.set_enabled(false);
  EXPECT_FALSE(ring.is_enabled());
  for (int i = 0; i < 10; ++i) ring.record(allocation(1, 1));
  EXPECT_EQ(ring.recorded(), 0U);
  EXPECT_EQ(ring.lost(), 0U);
  ring.set_enabled(true);
  ring.record(allocation(1, 1));
  EXPECT_EQ(drain_all(ring).size(), 1U);
}

TEST(EventRing, FourThreadsUnderCapacityKeepTheirOrderAndLoseNothing) {
  constexpr std::uint64_t kPerThread = 20'000;
  EventRing ring(4 * kPerThread);
  std::vector<std::thread> threads;
  for (std::uint32_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&ring, t] {
      for (std::uint64_t i = 0; i < kPerThread; ++i) {
        EventRecord event = allocation(i, 1);
        event.thread = t;
        ring.record(event);
      }
    });
  }
  // A reader beside them, with a small buffer, so that laps and partial reads happen.
  std::vector<EventRecord> events;
  std::array<EventRecord, 100> some;
  while (events.size() < 4 * kPerThread) {
    const std::size_t count = ring.drain(some);
    events.insert(events.end(), some.begin(), some.begin() + static_cast<std::ptrdiff_t>(count));
    EXPECT_TRUE(ring.is_valid());
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ring.lost(), 0U);
  std::array<std::uint64_t, 5> next{};
  for (std::size_t i = 0; i < events.size(); ++i) {
    ASSERT_EQ(events[i].tick, i);
    ASSERT_EQ(events[i].address, next[events[i].thread]++);
  }
}

TEST(EventRing, EventsUnderOneLockKeepTheLocksOrder) {
  EventRing ring(1 << 15);
  std::mutex device;
  std::uint64_t order = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        const std::lock_guard lock(device);
        ring.record(allocation(order++, 1));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const auto events = drain_all(ring);
  ASSERT_EQ(events.size(), 20'000U);
  for (std::size_t i = 0; i < events.size(); ++i) ASSERT_EQ(events[i].address, i);
}

TEST(EventRing, EveryEventIsEitherReadOrLostWhileTheReaderIsTooSlow) {
  EventRing ring(64);
  std::atomic<int> running{3};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 30'000; ++i) ring.record(allocation(7, 7));
      running.fetch_sub(1);
    });
  }
  std::uint64_t read = 0;
  std::array<EventRecord, 16> some;
  for (;;) {
    const bool last = running.load() == 0;
    const std::size_t count = ring.drain(some);
    for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(some[i].tick, read + i);
    read += count;
    if (last && count == 0) break;
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(read, ring.recorded());
  EXPECT_EQ(read + ring.lost(), 90'000U);
}

}  // namespace
}  // namespace ebbtide
