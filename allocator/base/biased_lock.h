// A lock for what one side changes all the time and others seldom look at.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "allocator/base/quick_lock.h"

namespace ebbtide {

// The frequent side has a QuickLock anyway: it is inside while it has that, and pays one load more to learn that it may be
// (is_open). Everybody else locks as usual (it is a Lockable), which waits for the QuickLock once, and then keeps the frequent
// side out until unlock(): it is told so, and has to lock, too (lock_inside).
//
// Who has it may lock it again: what torch calls while memory is made for the arena may ask for statistics on the same thread.
// Order: the QuickLock, then this.
class BiasedLock {
 public:
  // The frequent side's lock. Before there is one there must be no frequent side either.
  void stand_beside(QuickLock& frequent) { frequent_ = &frequent; }

  // Of the frequent side. False: somebody has this lock. Nothing that waits may be done inside.
  bool is_open() const { return !is_wanted_.load(std::memory_order_acquire); }
  // Of the frequent side: with the QuickLock nobody else is inside.
  void lock_inside() {
    others_.lock();
    if (depth_++ == 0) is_wanted_.store(true, std::memory_order_relaxed);
  }

  void lock() {
    if (lock_again()) return;
    if (frequent_ == nullptr) return lock_inside();
    const std::lock_guard outside(*frequent_);
    lock_inside();
  }
  void unlock() {
    if (--depth_ == 0) is_wanted_.store(false, std::memory_order_release);
    others_.unlock();
  }

  // For who needs no lock: what the frequent side stores inside, before this answers no, can be seen. What was stored by atomic
  // read-modify-writes (sequentially consistent) before this is asked can be seen by whoever enters after it.
  bool is_entered() const { return frequent_ != nullptr && frequent_->is_locked(); }
  void wait_until_left() const {
    while (is_entered()) std::this_thread::yield();
  }

 private:
  // Only its holder can know: others find another depth once they have it.
  bool lock_again() {
    if (!others_.try_lock()) return false;
    if (depth_ == 0) {
      others_.unlock();
      return false;
    }
    ++depth_;
    return true;
  }

  QuickLock* frequent_ = nullptr;
  std::recursive_mutex others_;
  int depth_ = 0;  // how often its holder has it; guarded by others_
  std::atomic<bool> is_wanted_{false};  // somebody has others_; set with both locks, but by who stands beside nobody yet
};

}  // namespace ebbtide
