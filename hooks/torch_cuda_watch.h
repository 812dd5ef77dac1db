// What torch's own allocator does, for the trace: its segments, its blocks, its failures.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include "allocator/base/event.h"
#include "allocator/base/units.h"

namespace ebbtide {

// Upstream calls back under its lock at every event: what is done there only records. Costs nothing without a trace.
// Never destroyed: upstream keeps a reference. Thread-safe.
class TorchCudaWatch {
 public:
  explicit TorchCudaWatch(EventSink& sink);

  // Requires: upstream is initialised, or it forgets the request.
  void attach(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream);

  // Of upstream's failures in this thread that were nobody's business, the last one reaches the program after all.
  void note_failure(Bytes asked, int device) noexcept;

  // While it lives, what this thread takes from upstream is memory to divide up: pieces of an arena, not blocks.
  class Pieces {
   public:
    Pieces() { ++depth_; }
    ~Pieces() { --depth_; }
    Pieces(const Pieces&) = delete;
    Pieces& operator=(const Pieces&) = delete;
    static bool is_on() { return depth_ > 0; }

   private:
    static thread_local int depth_;
  };

 private:
  using Entry = c10::cuda::CUDACachingAllocator::TraceEntry;

  void note(const Entry& entry) noexcept;

  EventSink& sink_;
  bool (*is_in_backward_)() = nullptr;
};

// Asks the driver how much of the device is used, and records it. Does nothing while a graph is captured.
void record_device_used(EventSink& sink, int device) noexcept;

}  // namespace ebbtide
