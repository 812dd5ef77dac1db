// Who in torch listens to single blocks of memory.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/impl/GPUTrace.h>

#include "hooks/torch_cuda_device.h"

namespace ebbtide {

// Asked at every block: torch's own allocator asks the same.
inline bool is_listened_to() {
  return C10_UNLIKELY(c10::impl::GPUTrace::get_trace() != nullptr || c10::memoryProfilingEnabled());
}

// What upstream tells of its blocks is told of the arena's, too. `change`: the block's size, negative when it goes.
void tell_listeners(void* address, Bytes change, TorchCudaDevice& own, c10::DeviceIndex device);

}  // namespace ebbtide
