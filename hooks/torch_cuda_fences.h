// CUDA events as fences between streams.
#pragma once

#include "allocator/device/stream_fences.h"

namespace ebbtide {

class TorchCudaFences final : public StreamFences {
 public:
  explicit TorchCudaFences(int device) : device_(device) {}
  EventId record(StreamId stream) override;
  void wait_and_destroy(StreamId stream, EventId event) override;

 private:
  const int device_;
};

}  // namespace ebbtide
