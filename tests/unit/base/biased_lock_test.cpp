#include "allocator/base/biased_lock.h"

#include <gtest/gtest.h>

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
  BiasedLock lock;
  EXPECT_TRUE(lock.try_enter());
  lock.leave();
  lock.lock();
  EXPECT_FALSE(lock.try_enter());
  lock.unlock();
  EXPECT_TRUE(lock.try_enter());
  lock.leave();
}

TEST(BiasedLock, WhoHasItMayLockItAgain) {
  BiasedLock lock;
  const std::lock_guard outer(lock);
  {
    const std::lock_guard inner(lock);
    EXPECT_FALSE(lock.try_enter());
  }
  EXPECT_FALSE(lock.try_enter()) << "it is still held";
}

TEST(BiasedLock, NobodySeesAChangeThatIsHalfDone) {
  constexpr std::int64_t kChanges = 20'000;
  constexpr std::int64_t kLooks = 500;
  BiasedLock lock;
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
    if (lock.try_enter()) {
      shared.add();
      lock.leave();
    } else {
      const std::lock_guard held(lock);
      shared.add();
    }
  }
  for (std::thread& other : others) other.join();
  EXPECT_EQ(torn, (std::vector<std::int64_t>{0, 0}));
  EXPECT_EQ(shared.first, kChanges + 2 * kLooks);
  EXPECT_EQ(shared.second, shared.first);
}

}  // namespace
}  // namespace ebbtide
