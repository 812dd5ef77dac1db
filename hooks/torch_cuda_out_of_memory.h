// Out of memory as the program sees it: what the error says, and who is told of which failure.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "allocator/base/units.h"

namespace ebbtide {

// What was so at the moment of the failure.
struct OutOfMemoryFacts {
  Bytes asked;
  Bytes allocated, reserved;          // torch's numbers, the arena's tensors counted one by one
  Bytes device_free, device_total;
  std::vector<Bytes> idle_blocks;     // held by torch or the arena, used by nobody
  Bytes arena, arena_live;
  Bytes given_back;                   // by the arena before this failure
  bool has_expandable_segments = false;
  struct Owner {
    Bytes size;
    std::string who;
  };
  std::vector<Owner> largest;         // live blocks, the largest first
};

// Torch's own text with the numbers that hold here, and with what it leaves out: the largest free block, the free
// bytes that fit nothing, who holds the most, what the arena gave back, and what to change.
std::string explain_out_of_memory(const std::string& text_of_torch, const OutOfMemoryFacts& facts);

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
