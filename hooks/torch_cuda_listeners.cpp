#include "hooks/torch_cuda_listeners.h"

#include <cstdint>

namespace ebbtide {

void tell_listeners(void* address, Bytes change, TorchCudaDevice& own, c10::DeviceIndex device) {
  if (const auto* trace = c10::impl::GPUTrace::get_trace(); trace != nullptr) {
    const auto number = reinterpret_cast<std::uintptr_t>(address);
    change.value > 0 ? (*trace)->trace_gpu_memory_allocation(c10::kCUDA, number)
                     : (*trace)->trace_gpu_memory_deallocation(c10::kCUDA, number);
  }
  if (!c10::memoryProfilingEnabled()) return;
  const TorchCudaStatistics::Totals now = own.statistics().totals();
  c10::reportMemoryUsageToProfiler(address, change.value, now.allocated, now.reserved, c10::Device(c10::DeviceType::CUDA, device));
}

}  // namespace ebbtide
