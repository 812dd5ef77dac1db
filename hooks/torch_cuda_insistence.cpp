#include "hooks/torch_cuda_insistence.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>

#include <cstdint>

namespace ebbtide {
namespace {

// Then nothing that is given back helps, and asking again only costs: upstream reserves addresses for each such
// attempt when its segments are expandable, and keeps them; above 2^60 bytes it counts none.
bool is_larger_than_the_device(Bytes size) {
  std::size_t free = 0;
  std::size_t total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess && static_cast<std::size_t>(size.value) > total;
}

}  // namespace

TorchCudaDevice* TorchCudaInsistence::device_to_relieve(const c10::OutOfMemoryError& error, Bytes size) {
  c10::DeviceIndex device = 0;
  C10_CUDA_CHECK(c10::cuda::GetDevice(&device));
  TorchCudaDevice* own = devices_.find(device);
  if (own == nullptr) return nullptr;
  // While a graph is captured nothing may be synchronised, so nothing can be given back.
  const bool is_captured = pools_.is_anything_captured();
  if (!is_captured && is_larger_than_the_device(size)) {
    failures_.tell_what_was_kept_back();
    if (watch_ != nullptr) watch_->note_failure(size, device);
    throw explained(error, *own, size, {});
  }
  own->statistics().hide_out_of_memory();
  return is_captured ? nullptr : own;
}

c10::OutOfMemoryError TorchCudaInsistence::explained(const c10::OutOfMemoryError& error, TorchCudaDevice& own, Bytes size,
                                                     Bytes given_back) const {
  const c10::SourceLocation here{__func__, __FILE__, static_cast<std::uint32_t>(__LINE__)};
  return {here, own.explain(error.msg(), size, given_back, stacks_)};
}

void TorchCudaInsistence::free_all_put_aside() const {
  for (void* block : UpstreamCall::take()) free_(block);
}

}  // namespace ebbtide
