#include "allocator/base/quick_lock.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace ebbtide {
namespace {

TEST(QuickLock, IsHeldByOne) {
  QuickLock lock;
  lock.lock();
  EXPECT_FALSE(lock.try_lock());
  lock.unlock();
  EXPECT_TRUE(lock.try_lock());
  lock.unlock();
}

// More threads than cores: those that wait must let the holder go on. The sanitizers see who changes it unprotected.
TEST(QuickLock, NothingIsLostAmongManyThreads) {
  constexpr int kThreads = 8;
  constexpr std::int64_t kTurns = 2'000;
  QuickLock lock;
  std::int64_t count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (std::int64_t turn = 0; turn < kTurns; ++turn) {
        const std::lock_guard held(lock);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, kThreads * kTurns);
}

}  // namespace
}  // namespace ebbtide
