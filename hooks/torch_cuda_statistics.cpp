#include "hooks/torch_cuda_statistics.h"

#include <c10/core/AllocatorConfig.h>

#include <algorithm>

namespace ebbtide {
namespace {

using Stats = TorchCudaStatistics::Stats;
using Stat = c10::CachingAllocator::Stat;

// Upstream's own: what a block takes, and so what memory_allocated() counts.
constexpr Bytes kBlockGrain{512};
// Small tensors of upstream are not seen one by one: so many bytes of them may have come since the last look.
constexpr std::int64_t kUnseen = 4 * kMiB.value;

constexpr std::array kTypeIndex{static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE),
                                static_cast<std::size_t>(c10::CachingAllocator::StatType::LARGE_POOL)};
constexpr std::size_t kAllocatedBytes = 2;  // index in the next
constexpr std::array<c10::CachingAllocator::StatArray Stats::*, 7> kFields{
    &Stats::allocation,     &Stats::active, &Stats::allocated_bytes, &Stats::active_bytes, &Stats::requested_bytes,
    &Stats::inactive_split, &Stats::inactive_split_bytes};

bool is_oversize(Bytes size) {
  return static_cast<std::size_t>(size.value) >= c10::CachingAllocator::AcceleratorAllocatorConfig::max_split_size();
}

std::size_t as_size(Bytes size) { return static_cast<std::size_t>(size.value); }

// What upstream counts as allocated in one block is in truth allocated in others.
void exchange(Stat& stat, const Stat& out, const Stat& in) {
  stat.current += in.current - out.current;
  stat.allocated += in.allocated - out.allocated;
  stat.freed += in.freed - out.freed;
}

void add_idle(Stat& stat, const Stat& pieces, const Stat& blocks) {
  stat.current += pieces.current - blocks.current;
  stat.allocated += pieces.allocated + blocks.freed;
  stat.freed += pieces.freed + blocks.allocated;
}

}  // namespace

void TorchCudaStatistics::placed(Bytes size) noexcept {
  const std::lock_guard lock(lock_);
  const Bytes rounded = align_up(size, kBlockGrain);
  blocks_.increase(1);
  bytes_.increase(as_size(rounded));
  requested_.increase(as_size(size));
  if (is_oversize(rounded)) oversize_.increase(1);
  if (may_be_peak()) sample();
}

void TorchCudaStatistics::released(Bytes size) noexcept {
  const std::lock_guard lock(lock_);
  if (may_be_peak()) sample();
  const Bytes rounded = align_up(size, kBlockGrain);
  blocks_.decrease(1);
  bytes_.decrease(as_size(rounded));
  requested_.decrease(as_size(size));
  if (is_oversize(rounded)) oversize_.decrease(1);
  lowest_ = std::min(lowest_, bytes_.current);
}

void TorchCudaStatistics::note_upstream(Bytes size) noexcept {
  const std::lock_guard lock(lock_);
  if (!in_use_) return;
  upstream_bytes_ += size.value;
  if (may_be_peak()) sample();
}

std::unique_lock<std::mutex> TorchCudaStatistics::hold() {
  std::unique_lock lock(lock_);
  if (in_use_) {
    sample();
  } else {
    const Stats stats = upstream_.getDeviceStats(device_);
    for (std::size_t kind = 0; kind < kCorrected; ++kind) {
      for (std::size_t type = 0; type < kTypes; ++type) peaks_[kind][type] = (stats.*kFields[kind])[kTypeIndex[type]].peak;
    }
    in_use_ = true;
  }
  return lock;
}

void TorchCudaStatistics::piece_taken(Bytes size) {
  pieces_.increase(1);
  piece_bytes_.increase(as_size(size));
  if (is_oversize(size)) oversize_pieces_.increase(1);
  sample();
}

void TorchCudaStatistics::piece_returned(Bytes size) {
  pieces_.decrease(1);
  piece_bytes_.decrease(as_size(size));
  if (is_oversize(size)) oversize_pieces_.decrease(1);
  sample();
}

void TorchCudaStatistics::hide_out_of_memory() {
  const std::lock_guard lock(lock_);
  ++hidden_failures_;
}

bool TorchCudaStatistics::may_be_peak() const {
  return bytes_.current + upstream_bytes_ + kUnseen > peaks_[kAllocatedBytes][0];
}

Stats TorchCudaStatistics::merged() const {
  Stats stats = upstream_.getDeviceStats(device_);
  for (const std::size_t type : kTypeIndex) {
    exchange(stats.allocation[type], pieces_, blocks_);
    exchange(stats.active[type], pieces_, blocks_);
    exchange(stats.allocated_bytes[type], piece_bytes_, bytes_);
    exchange(stats.active_bytes[type], piece_bytes_, bytes_);
    exchange(stats.requested_bytes[type], piece_bytes_, requested_);
    add_idle(stats.inactive_split_bytes[type], piece_bytes_, bytes_);
    stats.inactive_split[type].current += last_gaps_;
    stats.inactive_split[type].allocated += std::max<std::int64_t>(last_gaps_ - gaps_at_reset_, 0);
    stats.inactive_split[type].freed += std::max<std::int64_t>(gaps_at_reset_ - last_gaps_, 0);
  }
  exchange(stats.oversize_allocations, oversize_pieces_, oversize_);
  return stats;
}

void TorchCudaStatistics::sample() {
  const Stats stats = merged();
  const auto& allocated = stats.allocated_bytes[kTypeIndex[0]];
  for (std::size_t kind = 0; kind < kCorrected; ++kind) {
    for (std::size_t type = 0; type < kTypes; ++type) {
      std::int64_t& peak = peaks_[kind][type];
      peak = std::max(peak, (stats.*kFields[kind])[kTypeIndex[type]].current);
    }
  }
  // Upstream rose and fell unseen. At its highest, the arena held at least its lowest since.
  if (allocated.peak > upstream_peak_) {
    std::int64_t& peak = peaks_[kAllocatedBytes][0];
    peak = std::max(peak, allocated.peak - piece_bytes_.current + lowest_);
    upstream_peak_ = allocated.peak;
  }
  upstream_bytes_ = allocated.current - bytes_.current;
  lowest_ = bytes_.current;
}

Stats TorchCudaStatistics::read(std::int64_t gaps) {
  const std::lock_guard lock(lock_);
  if (in_use_) {
    last_gaps_ = gaps;
    sample();
  }
  Stats stats = in_use_ ? merged() : upstream_.getDeviceStats(device_);
  for (std::size_t kind = 0; in_use_ && kind < kCorrected; ++kind) {
    for (std::size_t type = 0; type < kTypes; ++type) (stats.*kFields[kind])[kTypeIndex[type]].peak = peaks_[kind][type];
  }
  stats.oversize_allocations.peak = std::max(stats.oversize_allocations.current, stats.oversize_allocations.peak);
  stats.num_ooms -= hidden_failures_;
  stats.num_alloc_retries -= hidden_failures_;
  return stats;
}

TorchCudaStatistics::Totals TorchCudaStatistics::totals() {
  const std::lock_guard lock(lock_);
  const Stats stats = merged();
  return {static_cast<std::size_t>(stats.allocated_bytes[kTypeIndex[0]].current),
          static_cast<std::size_t>(stats.reserved_bytes[kTypeIndex[0]].current)};
}

void TorchCudaStatistics::reset_peaks() {
  const std::lock_guard lock(lock_);
  upstream_.resetPeakStats(device_);
  peaks_ = {};
  upstream_peak_ = 0;
  lowest_ = 0;
  if (in_use_) sample();
}

void TorchCudaStatistics::reset_accumulated(std::int64_t gaps) {
  const std::lock_guard lock(lock_);
  upstream_.resetAccumulatedStats(device_);
  for (Stat* stat : {&blocks_, &bytes_, &requested_, &oversize_, &pieces_, &piece_bytes_, &oversize_pieces_}) {
    stat->reset_accumulated();
  }
  gaps_at_reset_ = last_gaps_ = gaps;
  hidden_failures_ = 0;
}

}  // namespace ebbtide
