// Out of memory as the program sees it: who is told of which failure. What is said is profiler/out_of_memory_text.h.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <cstdint>
#include <mutex>
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

  // While it lives, failures in this thread are nobody's business.
  class Quiet {
   public:
    Quiet() { ++depth_; }
    ~Quiet() { --depth_; }
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;
    static bool is_on() { return depth_ > 0; }

   private:
    static thread_local int depth_;
  };

 private:
  void tell(std::int64_t device, std::size_t allocated, std::size_t total, std::size_t free);

  c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream_;
  std::mutex lock_;  // guards observers_
  std::vector<Observer> observers_;
};

}  // namespace ebbtide
