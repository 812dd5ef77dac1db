#include "dryrun/core/memory_curve.h"

#include <algorithm>
#include <atomic>

namespace ebbtide::dryrun {

namespace {

constexpr std::size_t kMostSamples = std::size_t{1} << 20;  // 40 MiB; the last steps need fewer

std::atomic<std::int64_t (*)(int)> counter = nullptr;

}  // namespace

void MemoryCurve::add(const MemorySample& sample) {
  const std::lock_guard lock(mutex_);
  const auto latest = std::find_if(samples_.rbegin(), samples_.rend(), [&](const MemorySample& one) {
    return one.device == sample.device;
  });
  MemorySample next = sample;
  if (latest != samples_.rend()) {
    if (latest->has_same_bytes(sample)) return;
    next.time = std::max(sample.time, latest->time);  // another stream's clock was ahead
  }
  samples_.push_back(next);
  if (samples_.size() > kMostSamples) samples_.pop_front();
}

std::vector<MemorySample> MemoryCurve::since(double begin) {
  const std::lock_guard lock(mutex_);
  std::vector<MemorySample> found;
  std::ranges::copy_if(samples_, std::back_inserter(found),
                       [&](const MemorySample& sample) { return sample.time >= begin; });
  return found;
}

void set_live_bytes(std::int64_t (*count)(int device)) { counter = count; }

std::int64_t live_bytes(int device) {
  const auto count = counter.load();
  return count == nullptr ? 0 : count(device);
}

}  // namespace ebbtide::dryrun
