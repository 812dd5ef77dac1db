#include "hooks/torch_cuda_trimmer.h"

#include <c10/cuda/CUDAException.h>

#include <algorithm>

#include "hooks/torch_cuda_statistics.h"

namespace ebbtide {
namespace {

// Less than this is not worth a synchronisation.
constexpr Bytes kWorthTrimming{64 * kMiB.value};
constexpr std::int64_t kPartOfGrowth = 8;
constexpr std::int64_t kPartOfReserved = 32;

}  // namespace

Bytes TorchCudaTrimmer::reserved() const {
  return {upstream_.getDeviceStats(static_cast<c10::DeviceIndex>(device_)).reserved_bytes[kAggregate].current};
}

Bytes TorchCudaTrimmer::cached() const {
  const auto stats = upstream_.getDeviceStats(static_cast<c10::DeviceIndex>(device_));
  return {stats.reserved_bytes[kAggregate].current - stats.active_bytes[kAggregate].current};
}

void TorchCudaTrimmer::trim_for(Bytes growth) { trim_from(Bytes{growth.value / kPartOfGrowth}); }

void TorchCudaTrimmer::trim_for_a_part(Bytes growth) {
  trim_from(std::max(Bytes{growth.value / kPartOfGrowth}, Bytes{reserved().value / kPartOfReserved}));
}

void TorchCudaTrimmer::trim_from(Bytes worth) {
  const Bytes idle = cached() - stuck_;
  if (idle < std::max(kWorthTrimming, worth)) return;
  // Upstream waits for the streams that it knows its blocks from; ours may have used them elsewhere.
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  TorchCudaStatistics::empty_cache_unseen(upstream_);
  ++count_;
  stuck_ = cached();
}

}  // namespace ebbtide
