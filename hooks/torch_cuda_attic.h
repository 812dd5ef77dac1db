// Where tensors that stay are packed together: optimizer state, created in the first step; gradients of a step without a plan.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <unordered_set>

#include "allocator/base/units.h"
#include "allocator/device/stream_fences.h"
#include "hooks/torch_cuda_trimmer.h"

namespace ebbtide {

// Upstream would put them into whatever the first iteration left free, each pinning pages around it.
// The attic is a segment of upstream on a private stream, so that they lie side by side. All its users
// are on one stream; a block that is freed has the private stream wait for that stream first, because
// upstream orders reuse and unmapping by the private stream alone. Guarded by its owner's lock.
class TorchCudaAttic {
 public:
  TorchCudaAttic(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream, int device,
                 StreamFences& fences)
      : upstream_(upstream), device_(device), fences_(fences), trimmer_(upstream, device) {}

  // Throws what upstream throws.
  void* allocate(Bytes size);
  // False when the block is not the attic's. `user` is the stream its work ran on.
  bool release(void* address, StreamId user);
  bool is_empty() const { return blocks_.empty(); }

 private:
  c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream_;
  const int device_;
  StreamFences& fences_;
  TorchCudaTrimmer trimmer_;
  cudaStream_t stream_ = nullptr;
  std::unordered_set<void*> blocks_;
};

}  // namespace ebbtide
