// Whether a device has room: for what a layer's backward would fetch before it must, and for a larger share.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>

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

// Bytes that a device could give this process, which may use `share` of it, beside the most that was
// alive in it since that peak was last reset. What other processes have is not to be had. None:
// nothing says. Never throws.
std::optional<std::int64_t> headroom(c10::Device device, double share) noexcept;

}  // namespace ebbtide::offload
