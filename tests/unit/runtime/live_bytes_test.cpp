#include "allocator/runtime/live_bytes.h"

#include <gtest/gtest.h>

#include <barrier>
#include <mutex>
#include <thread>

#include "allocator/base/quick_lock.h"

namespace ebbtide {
namespace {

constexpr Bytes kOne{1};

TEST(LiveBytes, CountsWhatUpstreamAndTheArenaHoldTogether) {
  LiveBytes bytes;
  bytes.set_extent(Bytes{100});
  bytes.add_in_arena(Bytes{30});
  bytes.add(Bytes{5});
  EXPECT_EQ(bytes.live(), Bytes{35});
  EXPECT_EQ(bytes.live_upstream(), Bytes{5});
  EXPECT_EQ(bytes.held(), Bytes{105}) << "what is idle in the arena, too";
  bytes.remove_from_arena(Bytes{30});
  bytes.remove(Bytes{5});
  bytes.set_extent(Bytes{40});
  EXPECT_EQ(bytes.live(), Bytes{});
  EXPECT_EQ(bytes.held(), Bytes{40});
  EXPECT_EQ(bytes.peak_live(), Bytes{35});
  EXPECT_EQ(bytes.peak_held(), Bytes{105});
}

// As each adds its own, neither may see the other's: what is found as one of them leaves counts.
TEST(LiveBytes, APeakOfTwoThreadsIsNotMissed) {
  constexpr int kTurns = 20'000;
  LiveBytes bytes;
  QuickLock lock;
  std::barrier<> together(2);
  std::thread upstream([&] {
    for (int turn = 0; turn < kTurns; ++turn) {
      together.arrive_and_wait();
      bytes.add(kOne);
      together.arrive_and_wait();
      together.arrive_and_wait();
      bytes.remove(kOne);
      together.arrive_and_wait();
    }
  });
  int missed = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    bytes.reset_peak_live();
    together.arrive_and_wait();
    {
      const std::lock_guard held(lock);
      bytes.add_in_arena(kOne);
    }
    together.arrive_and_wait();
    {
      const std::lock_guard held(lock);
      bytes.remove_from_arena(kOne);
    }
    missed += bytes.peak_live() == Bytes{2} ? 0 : 1;
    together.arrive_and_wait();
    together.arrive_and_wait();
  }
  upstream.join();
  EXPECT_EQ(missed, 0);
}

}  // namespace
}  // namespace ebbtide
