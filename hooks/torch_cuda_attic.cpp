#include "hooks/torch_cuda_attic.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

namespace ebbtide {

void* TorchCudaAttic::allocate(Bytes size) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
  if (stream_ == nullptr) C10_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  trimmer_.trim_for_a_part(size);
  void* address = upstream_.raw_alloc_with_stream(static_cast<std::size_t>(size.value), stream_);
  blocks_.insert(address);
  return address;
}

bool TorchCudaAttic::release(void* address, StreamId user) {
  if (blocks_.erase(address) == 0) return false;
  fences_.wait_and_destroy({reinterpret_cast<std::uint64_t>(stream_)}, fences_.record(user));
  upstream_.raw_delete(address);
  return true;
}

}  // namespace ebbtide
