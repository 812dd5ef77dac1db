// A lock for what one side changes all the time and others seldom look at.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace ebbtide {

// The frequent side, of which there is only one at a time by other means, enters with a single atomic exchange and leaves
// with a plain store, where a mutex takes two atomic operations and two calls. Everybody else locks as usual (it is a Lockable),
// and then keeps the frequent side out until unlock(): it is told so by try_enter(), and has to lock, too.
//
// Who has it may lock it again: what torch calls while memory is made for the arena may free some of it on the same thread.
//
// Each side says what it wants before it looks at what the other wants (Dekker's algorithm), so never do both get in.
class BiasedLock {
 public:
  // Of the frequent side. False: somebody has the lock or wants it. Nothing that waits may be done inside.
  bool try_enter() {
    is_inside_.exchange(true, std::memory_order_seq_cst);
    if (!is_wanted_.load(std::memory_order_seq_cst)) return true;
    leave();
    return false;
  }
  void leave() { is_inside_.store(false, std::memory_order_release); }

  void lock() {
    others_.lock();
    if (depth_++ > 0) return;
    is_wanted_.store(true, std::memory_order_seq_cst);
    wait_until_left();
  }
  void unlock() {
    if (--depth_ == 0) is_wanted_.store(false, std::memory_order_release);
    others_.unlock();
  }

  // For who needs no lock: what the frequent side stores inside, before this answers, can be seen. What was stored by atomic
  // read-modify-writes (sequentially consistent) before this is asked can be seen by whoever enters after it.
  void wait_until_left() const {
    while (is_inside_.load(std::memory_order_seq_cst)) std::this_thread::yield();
  }

 private:
  std::recursive_mutex others_;
  int depth_ = 0;  // how often its holder has it; guarded by others_
  std::atomic<bool> is_inside_{false};  // the frequent side
  std::atomic<bool> is_wanted_{false};  // by others: one has others_
};

}  // namespace ebbtide
