#include "allocator/base/biased_lock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace ebbtide {
namespace {

// Two numbers that are the same whenever nobody is changing them; the sanitizers see who changes them unprotected.
struct Pair {
  std::int64_t first = 0, second = 0;

  void add() {
    ++first;
    ++second;
  }
};

TEST(BiasedLock, TheFrequentSideIsKeptOutWhileItIsLocked) {
  QuickLock frequent;
  BiasedLock lock;
  lock.stand_beside(frequent);
  EXPECT_TRUE(lock.is_open());
  lock.lock();
  EXPECT_FALSE(lock.is_open());
  EXPECT_FALSE(frequent.is_locked()) << "it is waited for, not kept";
  lock.unlock();
  EXPECT_TRUE(lock.is_open());
}

TEST(BiasedLock, WhoHasItMayLockItAgain) {
  QuickLock frequent;
  BiasedLock lock;
  lock.stand_beside(frequent);
  const std::lock_guard outer(lock);
  {
    const std::lock_guard inner(lock);
    EXPECT_FALSE(lock.is_open());
  }
  EXPECT_FALSE(lock.is_open()) << "it is still held";
  {
    const std::lock_guard inside(frequent);
    lock.lock_inside();
    lock.unlock();
  }
  EXPECT_FALSE(lock.is_open()) << "it is still held";
}

// What runs with the QuickLock held, somewhere, may be waiting for who has this one.
TEST(BiasedLock, WhoHasItLocksItAgainWithoutTheFrequentSidesLock) {
  QuickLock frequent;
  BiasedLock lock;
  lock.stand_beside(frequent);
  const std::lock_guard outer(lock);
  const std::lock_guard somebody(frequent);
  const std::lock_guard inner(lock);
  EXPECT_FALSE(lock.is_open());
}

TEST(BiasedLock, NobodySeesAChangeThatIsHalfDone) {
  constexpr std::int64_t kChanges = 20'000;
  constexpr std::int64_t kLooks = 500;
  QuickLock frequent;
  BiasedLock lock;
  lock.stand_beside(frequent);
  Pair shared;
  std::vector<std::thread> others;
  std::vector<std::int64_t> torn(2);
  for (std::int64_t& count : torn) {
    others.emplace_back([&lock, &shared, &count] {
      for (std::int64_t i = 0; i < kLooks; ++i) {
        const std::lock_guard held(lock);
        count += shared.first == shared.second ? 0 : 1;
        shared.add();
      }
    });
  }
  for (std::int64_t i = 0; i < kChanges; ++i) {
    const std::lock_guard inside(frequent);
    if (lock.is_open()) {
      shared.add();
    } else {
      lock.lock_inside();
      const std::lock_guard held(lock, std::adopt_lock);
      shared.add();
    }
  }
  for (std::thread& other : others) other.join();
  EXPECT_EQ(torn, (std::vector<std::int64_t>{0, 0}));
  EXPECT_EQ(shared.first, kChanges + 2 * kLooks);
  EXPECT_EQ(shared.second, shared.first);
}

// Both sides say something and then look at what the other said, the others without a lock: one of them sees it.
TEST(BiasedLock, WhoWaitsUntilItIsLeftIsSeenOrSees) {
  constexpr int kTurns = 20'000;
  QuickLock frequent;
  BiasedLock lock;
  lock.stand_beside(frequent);
  std::atomic<int> said_outside{0}, said_inside{0};
  std::vector<int> seen_outside(kTurns + 1), seen_inside(kTurns + 1);
  std::thread outside([&] {
    for (int turn = 1; turn <= kTurns; ++turn) {
      said_outside.fetch_add(1, std::memory_order_seq_cst);
      lock.wait_until_left();
      seen_outside[static_cast<std::size_t>(turn)] = said_inside.load(std::memory_order_relaxed);
    }
  });
  for (int turn = 1; turn <= kTurns; ++turn) {
    const std::lock_guard inside(frequent);
    seen_inside[static_cast<std::size_t>(turn)] = said_outside.load(std::memory_order_seq_cst);
    said_inside.store(turn, std::memory_order_relaxed);
  }
  outside.join();
  for (int turn = 1; turn <= kTurns; ++turn) {
    // The last turn inside that had not seen this one ended before, and was seen.
    const auto blind = std::upper_bound(seen_inside.begin(), seen_inside.end(), turn - 1) - seen_inside.begin() - 1;
    ASSERT_GE(seen_outside[static_cast<std::size_t>(turn)], blind) << "turn " << turn;
  }
}

}  // namespace
}  // namespace ebbtide
