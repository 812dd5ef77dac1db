// Whether a device has room for what a layer's backward would fetch before it must.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace ebbtide::offload {

// Bytes of a device: alive in tensors, and there in all for this process.
struct DeviceMemory {
  std::int64_t live = 0, whole = 0;
};

// Whether `fetched` bytes may lie in `memory` during the backward of the attention of a layer whose
// input has `input` bytes. Looks at live bytes, not at time: steps of one length get one answer.
bool has_room(const DeviceMemory& memory, std::int64_t input, std::int64_t fetched);

// The same for a device, of whose memory this process may use `share`. Where nothing says how much
// memory there is (the host, an allocator that keeps no statistics), there is no room. Never
// throws.
bool has_room(c10::Device device, double share, std::int64_t input, std::int64_t fetched) noexcept;

}  // namespace ebbtide::offload
