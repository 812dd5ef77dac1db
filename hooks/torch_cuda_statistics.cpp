#include "hooks/torch_cuda_statistics.h"

#include <c10/core/AllocatorConfig.h>

#include <algorithm>
#include <limits>

#include "hooks/torch_cuda_upstream_call.h"

namespace ebbtide {
namespace {

using Stats = TorchCudaStatistics::Stats;
using Stat = c10::CachingAllocator::Stat;

// Small tensors of upstream are not seen one by one: so many bytes of them may have come since the last look.
constexpr std::int64_t kUnseen = 4 * kMiB.value;

constexpr std::array kTypeIndex{static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE),
                                static_cast<std::size_t>(c10::CachingAllocator::StatType::LARGE_POOL)};
constexpr std::size_t kAllocatedBytes = 2, kRequestedBytes = 4;  // indices in the next
constexpr std::array<c10::CachingAllocator::StatArray Stats::*, 7> kFields{
    &Stats::allocation,     &Stats::active, &Stats::allocated_bytes, &Stats::active_bytes, &Stats::requested_bytes,
    &Stats::inactive_split, &Stats::inactive_split_bytes};

constexpr std::array<c10::CachingAllocator::StatArray Stats::*, 9> kPooled{
    &Stats::allocation,      &Stats::segment,        &Stats::active,       &Stats::inactive_split,      &Stats::allocated_bytes,
    &Stats::reserved_bytes,  &Stats::active_bytes,   &Stats::inactive_split_bytes, &Stats::requested_bytes};
constexpr std::array<Stat Stats::*, 2> kUnpooled{&Stats::oversize_allocations, &Stats::oversize_segments};

// `stats` with the higher of its own peaks and those of `other`.
void raise_peaks(Stats& stats, const Stats& other) {
  const auto raise = [](Stat& stat, const Stat& by) { stat.peak = std::max(stat.peak, by.peak); };
  for (const auto kind : kPooled) {
    for (std::size_t type = 0; type < (stats.*kind).size(); ++type) raise((stats.*kind)[type], (other.*kind)[type]);
  }
  for (const auto kind : kUnpooled) raise(stats.*kind, other.*kind);
}

// Upstream refuses a lower limit.
constexpr Bytes kLeastOversize{20 * kMiB.value};

bool is_oversize(Bytes size) {
  using Config = c10::CachingAllocator::AcceleratorAllocatorConfig;
  return size >= kLeastOversize && static_cast<std::size_t>(size.value) >= Config::max_split_size();
}

// Upstream's own: the largest remainders of a block that stay with it, in general and for what it never splits.
constexpr std::int64_t kLargestRest = kMiB.value;
constexpr std::int64_t kLargestOversizeRest = 20 * kMiB.value;

std::size_t as_size(Bytes size) { return static_cast<std::size_t>(size.value); }

}  // namespace

// What upstream counts as allocated in one block is in truth allocated in others.
void TorchCudaStatistics::exchange(Stat& stat, const Flow& out, const Flow& in) {
  stat.current += in.current() - out.current();
  stat.allocated += in.allocated - out.allocated;
  stat.freed += in.freed - out.freed;
}

void TorchCudaStatistics::add_idle(Stat& stat, const Flow& pieces, const Flow& blocks) {
  stat.current += pieces.current() - blocks.current();
  stat.allocated += pieces.allocated + blocks.freed;
  stat.freed += pieces.freed + blocks.allocated;
}

// By how much more than its size, rounded up, a block of upstream may count as allocated.
std::int64_t TorchCudaStatistics::Estimate::slack(Bytes size) {
  using Config = c10::CachingAllocator::AcceleratorAllocatorConfig;
  const std::int64_t rounding = Config::roundup_power2_divisions(as_size(size)) > 1 ? size.value : 0;
  if (Config::use_expandable_segments()) return rounding;
  return rounding + (is_oversize(size) ? kLargestOversizeRest : kLargestRest);
}

TorchCudaStatistics::Block TorchCudaStatistics::block_of(Bytes size, bool may_be_oversize) {
  const Bytes rounded{(size.value + kBlockGrain.value - 1) & -kBlockGrain.value};
  return {size, rounded, may_be_oversize && is_oversize(rounded)};
}

[[gnu::always_inline]] inline void TorchCudaStatistics::add(const Block& block) {
  blocks_.increase(1);
  bytes_.increase(block.rounded.value);
  requested_.increase(block.requested.value);
  if (block.is_oversize) [[unlikely]] oversize_.increase(1);
  give_room({-block.rounded.value});
}

[[gnu::always_inline]] inline void TorchCudaStatistics::remove(const Block& block) {
  blocks_.decrease(1);
  bytes_.decrease(block.rounded.value);
  requested_.decrease(block.requested.value);
  if (block.is_oversize) [[unlikely]] oversize_.decrease(1);
  if (bytes_.current() < unseen_allocated_.lowest) [[unlikely]] unseen_allocated_.lowest = bytes_.current();
  if (requested_.current() < unseen_requested_.lowest) [[unlikely]] unseen_requested_.lowest = requested_.current();
  give_room(block.rounded);
}

void TorchCudaStatistics::placed(Bytes size) noexcept {
  const Block block = block_of(size, true);
  if (!is_plain(block.rounded)) [[unlikely]] return place_looking(size, block.is_oversize);
  add(block);
}

void TorchCudaStatistics::place_looking(Bytes size, bool is_oversize) noexcept {
  Block block = block_of(size, false);
  block.is_oversize = is_oversize;
  lock_.lock_inside();
  const std::lock_guard lock(lock_, std::adopt_lock);
  end_still();
  add(block);
  note_room();
  if (may_be_peak()) sample();
}

void TorchCudaStatistics::released(Bytes size) noexcept {
  // Torch is asked for its limit where there is such a block at all. Only who calls this changes their number.
  const Block block = block_of(size, oversize_.current() > 0);
  if (!is_plain({})) [[unlikely]] return release_looking(size, block.is_oversize);
  remove(block);
}

void TorchCudaStatistics::release_looking(Bytes size, bool is_oversize) noexcept {
  Block block = block_of(size, false);
  block.is_oversize = is_oversize;
  lock_.lock_inside();
  const std::lock_guard lock(lock_, std::adopt_lock);
  end_still();
  if (may_be_peak()) sample();
  remove(block);
  note_room();
}

// Whoever holds the engine's lock may wait for upstream's: who has that has to do without.
void TorchCudaStatistics::wait_until_left() const {
  if (!UpstreamCall::is_on()) lock_.wait_until_left();
}

void TorchCudaStatistics::look() noexcept {
  const std::lock_guard lock(lock_);
  if (!is_still_ && may_be_peak()) begin_still();
}

void TorchCudaStatistics::begin_still() {
  const Stats upstream = sample();
  raise_peaks(folded_, upstream);
  upstream_.resetPeakStats(device_);
  unseen_allocated_.upstream_peak = upstream.allocated_bytes[kTypeIndex[0]].current;
  unseen_requested_.upstream_peak = upstream.requested_bytes[kTypeIndex[0]].current;
  is_still_ = true;
  note_room();
}

void TorchCudaStatistics::end_still() {
  if (!is_still_) return;
  sample();
  is_still_ = false;
}

std::unique_lock<BiasedLock> TorchCudaStatistics::hold() {
  std::unique_lock lock(lock_);
  if (in_use_) {
    sample();
    is_still_ = false;
    note_room();
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
  piece_bytes_.increase(size.value);
  if (is_oversize(size)) oversize_pieces_.increase(1);
  sample();
}

void TorchCudaStatistics::piece_returned(Bytes size) {
  pieces_.decrease(1);
  piece_bytes_.decrease(size.value);
  if (is_oversize(size)) oversize_pieces_.decrease(1);
  sample();
}

void TorchCudaStatistics::hide_out_of_memory() {
  const std::lock_guard lock(lock_);
  ++hidden_failures_;
}

void TorchCudaStatistics::empty_cache_unseen(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream) {
  upstream.emptyCache();
  hidden_syncs_.fetch_add(1, std::memory_order_relaxed);
}

bool TorchCudaStatistics::may_be_peak() const {
  return bytes_.current() + estimate_.value() + kUnseen > peaks_[kAllocatedBytes][0];
}

void TorchCudaStatistics::note_room() {
  constexpr std::int64_t kAll = std::numeric_limits<std::int64_t>::max();
  const std::int64_t room = peaks_[kAllocatedBytes][0] - bytes_.current() - kUnseen;
  room_.store(is_still_ ? kAll : room, std::memory_order_relaxed);
}

Stats TorchCudaStatistics::merged(const Stats& upstream) const {
  Stats stats = upstream;
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

// Returns upstream's own numbers.
Stats TorchCudaStatistics::sample() {
  estimate_.begin_look();
  Stats upstream = upstream_.getDeviceStats(device_);
  const Stats stats = merged(upstream);
  const auto& allocated = stats.allocated_bytes[kTypeIndex[0]];
  for (std::size_t kind = 0; kind < kCorrected; ++kind) {
    for (std::size_t type = 0; type < kTypes; ++type) {
      const Stat& now = (stats.*kFields[kind])[kTypeIndex[type]];
      const Stat& of_upstream = (upstream.*kFields[kind])[kTypeIndex[type]];
      const std::int64_t fallen = is_still_ ? of_upstream.peak - of_upstream.current : 0;
      peaks_[kind][type] = std::max(peaks_[kind][type], now.current + fallen);
    }
  }
  note_unseen(unseen_allocated_, kAllocatedBytes, upstream, bytes_);
  note_unseen(unseen_requested_, kRequestedBytes, upstream, requested_);
  estimate_.end_look(allocated.current - bytes_.current());
  note_room();
  return upstream;
}

// Upstream may have risen and fallen unseen. At its highest, the arena held at least its lowest since.
void TorchCudaStatistics::note_unseen(Unseen& unseen, std::size_t kind, const Stats& upstream, const Flow& of_arena) {
  const std::int64_t highest = (upstream.*kFields[kind])[kTypeIndex[0]].peak;
  if (highest > unseen.upstream_peak) {
    std::int64_t& peak = peaks_[kind][0];
    peak = std::max(peak, highest - piece_bytes_.current() + unseen.lowest);
    unseen.upstream_peak = highest;
  }
  unseen.lowest = of_arena.current();
}

Stats TorchCudaStatistics::read(std::int64_t gaps) {
  const std::lock_guard lock(lock_);
  Stats stats;
  if (in_use_) {
    last_gaps_ = gaps;
    stats = merged(sample());
    raise_peaks(stats, folded_);
  } else {
    stats = upstream_.getDeviceStats(device_);
  }
  for (std::size_t kind = 0; in_use_ && kind < kCorrected; ++kind) {
    for (std::size_t type = 0; type < kTypes; ++type) (stats.*kFields[kind])[kTypeIndex[type]].peak = peaks_[kind][type];
  }
  stats.oversize_allocations.peak = std::max(stats.oversize_allocations.current, stats.oversize_allocations.peak);
  stats.num_sync_all_streams -= hidden_syncs_.load(std::memory_order_relaxed) - syncs_at_reset_;
  stats.num_ooms -= hidden_failures_;
  stats.num_alloc_retries -= hidden_failures_;
  return stats;
}

TorchCudaStatistics::Totals TorchCudaStatistics::totals() {
  const std::lock_guard lock(lock_);
  const Stats stats = merged(upstream_.getDeviceStats(device_));
  return {static_cast<std::size_t>(stats.allocated_bytes[kTypeIndex[0]].current),
          static_cast<std::size_t>(stats.reserved_bytes[kTypeIndex[0]].current)};
}

LiveTotals TorchCudaStatistics::live() {
  lock_.lock_inside();
  const std::lock_guard lock(lock_, std::adopt_lock);
  if (in_use_) {
    const Stats stats = merged(sample());
    return {{stats.allocated_bytes[kTypeIndex[0]].current}, {peaks_[kAllocatedBytes][0]}};
  }
  const auto allocated = upstream_.getDeviceStats(device_).allocated_bytes[kTypeIndex[0]];
  return {{allocated.current}, {allocated.peak}};
}

Bytes TorchCudaStatistics::peak_reserved() {
  lock_.lock_inside();
  const std::lock_guard lock(lock_, std::adopt_lock);
  const auto type = kTypeIndex[0];
  return {std::max(upstream_.getDeviceStats(device_).reserved_bytes[type].peak, folded_.reserved_bytes[type].peak)};
}

void TorchCudaStatistics::reset_peaks() {
  const std::lock_guard lock(lock_);
  upstream_.resetPeakStats(device_);
  peaks_ = {};
  folded_ = {};
  is_still_ = false;
  unseen_allocated_ = unseen_requested_ = {};
  if (in_use_) sample();
}

void TorchCudaStatistics::reset_accumulated(std::int64_t gaps) {
  const std::lock_guard lock(lock_);
  upstream_.resetAccumulatedStats(device_);
  for (Flow* flow : {&blocks_, &bytes_, &requested_, &oversize_, &pieces_, &piece_bytes_, &oversize_pieces_}) {
    flow->reset_accumulated();
  }
  if (upstream_.getDeviceStats(device_).num_sync_all_streams == 0) syncs_at_reset_ = hidden_syncs_.load(std::memory_order_relaxed);
  gaps_at_reset_ = last_gaps_ = gaps;
  hidden_failures_ = 0;
}

}  // namespace ebbtide
