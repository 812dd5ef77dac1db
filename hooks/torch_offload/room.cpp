#include "hooks/torch_offload/room.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <exception>

namespace ebbtide::offload {
namespace {

constexpr double kUsed = 0.9;  // the rest is left for fragments and for what others allocate
// Of what a share may add to the most that was alive: the two are rarely there together.
constexpr double kUsedAtMost = 0.95;
// Whole-length tensors that attention's backward makes beside what is there: gradients of q, k and
// v, and one of them in float32 while it is summed up.
constexpr std::int64_t kAttentionMakes = 6;
constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);

}  // namespace

bool has_room(const DeviceMemory& memory, std::int64_t input, std::int64_t fetched) {
  const std::int64_t needed = memory.live + fetched + kAttentionMakes * input;
  return static_cast<double>(needed) <= kUsed * static_cast<double>(memory.whole);
}

bool has_room(c10::Device device, double share, std::int64_t input, std::int64_t fetched) noexcept {
  if (device.is_cpu()) return false;
  try {
    c10::DeviceAllocator& allocator = *c10::getDeviceAllocator(device.type());
    const std::int64_t live =
        allocator.getDeviceStats(device.index()).allocated_bytes[kAll].current;
    const double whole = static_cast<double>(allocator.getMemoryInfo(device.index()).second);
    return has_room(DeviceMemory{live, static_cast<std::int64_t>(share * whole)}, input, fetched);
  } catch (const std::exception&) {
    return false;
  }
}

std::optional<std::int64_t> headroom(c10::Device device, double share) noexcept {
  if (device.is_cpu()) return std::nullopt;
  try {
    c10::DeviceAllocator& allocator = *c10::getDeviceAllocator(device.type());
    const auto stats = allocator.getDeviceStats(device.index());
    const auto [free, total] = allocator.getMemoryInfo(device.index());
    const double within_reach =
        static_cast<double>(free) + static_cast<double>(stats.reserved_bytes[kAll].current);
    const double whole = std::min(within_reach, share * static_cast<double>(total));
    return static_cast<std::int64_t>(kUsedAtMost * whole) - stats.allocated_bytes[kAll].peak;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace ebbtide::offload
