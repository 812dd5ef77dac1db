// Gives back what torch's allocator has cached and does not use, before somebody else takes memory.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <atomic>
#include <cstdint>

#include "allocator/base/units.h"

namespace ebbtide {

// So that the device never holds the same bytes twice. Trimming synchronises and unmaps, so it happens
// only when there is something worth it. Serialised by its users.
class TorchCudaTrimmer {
 public:
  TorchCudaTrimmer(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream, int device)
      : upstream_(upstream), device_(device) {}

  // Before `growth` bytes are taken.
  void trim_for(Bytes growth);
  // Before a part of what will be taken bit by bit, while ever more becomes idle: only where that is much by now.
  void trim_for_a_part(Bytes growth);
  std::int64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  void trim_from(Bytes worth);
  Bytes reserved() const;
  Bytes cached() const;

  c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream_;
  const int device_;
  Bytes stuck_;             // cached memory that the last trim could not give back
  std::atomic<std::int64_t> count_{0};  // read by reports while it grows
};

}  // namespace ebbtide
