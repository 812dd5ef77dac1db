// Out of memory as the program sees it: who is told of which failure. What is said is profiler/out_of_memory_text.h.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace ebbtide {

// Upstream tells its observers of every failure; here some are none, because the arena has memory to give or the
// request another place to go. Observers are told of those that reach the program.
//
// Never destroyed: upstream keeps a reference. Thread-safe.
class OutOfMemoryRelay {
 public:
  using Observer = c10::cuda::CUDACachingAllocator::OutOfMemoryObserver;

  explicit OutOfMemoryRelay(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream) : upstream_(upstream) {}

  void attach(Observer observer);

  // A failure as upstream tells of it.
  struct Failure {
    std::int64_t device = 0;
    std::size_t asked = 0, total = 0, free = 0;  // bytes
  };

  // The failure that the last Quiet of this thread kept back reaches the program after all.
  void tell_what_was_kept_back() {
    if (const auto failure = std::exchange(kept_back_, std::nullopt)) tell(*failure);
  }

  // While it lives, failures in this thread are nobody's business. It is made for every request: where nobody listens, it
  // touches nothing of the thread's.
  class Quiet {
   public:
    Quiet() : has_listeners_(is_listened_to_.load(std::memory_order_relaxed)) {
      if (has_listeners_) begin();
    }
    ~Quiet() {
      if (has_listeners_) --depth_;
    }
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;
    static bool is_on() { return depth_ > 0; }

   private:
    static void begin();

    const bool has_listeners_;
    static thread_local int depth_;
  };

  // From now on somebody asks Quiet.
  static void note_listener() { is_listened_to_.store(true, std::memory_order_relaxed); }

 private:
  void tell(const Failure& failure);

  static thread_local std::optional<Failure> kept_back_;
  static std::atomic<bool> is_listened_to_;
  c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream_;
  std::mutex lock_;  // guards observers_
  std::vector<Observer> observers_;
};

}  // namespace ebbtide
