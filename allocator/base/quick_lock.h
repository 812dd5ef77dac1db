// A lock that is held for a moment, mostly by one thread.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace ebbtide {

// A Lockable that takes one atomic exchange and leaves with a plain store, both inline: half of what a mutex takes that
// nobody else wants. Who has to wait spins, and then sleeps in short turns: unlock() wakes nobody.
class QuickLock {
 public:
  void lock() {
    if (try_lock()) return;
    wait_and_lock();
  }
  bool try_lock() { return !is_taken_.exchange(true, std::memory_order_seq_cst); }
  void unlock() { is_taken_.store(false, std::memory_order_release); }
  // For who needs no lock: see BiasedLock::wait_until_left().
  bool is_locked() const { return is_taken_.load(std::memory_order_seq_cst); }

 private:
  static constexpr int kSpins = 100, kYields = 20;
  static constexpr std::chrono::microseconds kTurn{20};

  void wait_and_lock() {
    for (int turn = 0;; ++turn) {
      if (!is_taken_.load(std::memory_order_relaxed) && try_lock()) return;
      if (turn < kSpins) continue;
      if (turn < kSpins + kYields) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(kTurn);
      }
    }
  }

  std::atomic<bool> is_taken_{false};
};

}  // namespace ebbtide
