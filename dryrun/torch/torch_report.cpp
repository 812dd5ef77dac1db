#include "dryrun/torch/torch_report.h"

#include <c10/cuda/CUDACachingAllocator.h>

#include "dryrun/core/simulator.h"
#include "dryrun/torch/step_watch.h"

namespace ebbtide::dryrun {

std::string torch_report() {
  end_watched_step();
  using c10::CachingAllocator::StatType;
  namespace allocator = c10::cuda::CUDACachingAllocator;
  if (allocator::allocator.load() == nullptr || !allocator::get()->initialized()) return "null";
  constexpr auto kAggregate = static_cast<std::size_t>(StatType::AGGREGATE);
  std::string json = "[";
  try {
    for (int i = 0; i < Simulator::instance().device_count(); ++i) {
      const auto stats = allocator::getDeviceStats(static_cast<c10::DeviceIndex>(i));
      json +=
          std::string(i == 0 ? "" : ", ") + "{\"index\": " + std::to_string(i) +
          ", \"peak_allocated_bytes\": " + std::to_string(stats.allocated_bytes[kAggregate].peak) +
          ", \"peak_requested_bytes\": " + std::to_string(stats.requested_bytes[kAggregate].peak) +
          ", \"peak_reserved_bytes\": " + std::to_string(stats.reserved_bytes[kAggregate].peak) +
          ", \"retries\": " + std::to_string(stats.num_alloc_retries) +
          ", \"out_of_memory\": " + std::to_string(stats.num_ooms) + "}";
    }
  } catch (const std::exception&) {
    return "null";  // an allocator without statistics
  }
  return json + "]";
}

std::int64_t torch_live_bytes(int device) {
  using c10::CachingAllocator::StatType;
  namespace allocator = c10::cuda::CUDACachingAllocator;
  if (allocator::allocator.load() == nullptr || !allocator::get()->initialized()) return 0;
  try {
    const auto stats = allocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
    return stats.allocated_bytes[static_cast<std::size_t>(StatType::AGGREGATE)].current;
  } catch (const std::exception&) {
    return 0;  // an allocator without statistics
  }
}

}  // namespace ebbtide::dryrun
