// What an engine tells of itself: its figures, and which blocks are alive.
#include <algorithm>
#include <mutex>

#include "allocator/runtime/engine.h"

namespace ebbtide {

Bytes Engine::reserved_now() const { return options_.upstream_caches ? arena_.range().reserved() : live_.held(); }

Engine::Extent Engine::block_at(const void* address) const noexcept {
  const std::lock_guard lock(lock_);
  if (!arena_.contains(address)) return {};
  const Offset offset = arena_.offset_of(address);
  const BlockTable::Entry* entry = arena_.blocks().holding_entry(offset, Bytes{1});
  if (entry == nullptr) return {};
  return {arena_.address(entry->first), entry->second.size};
}

std::vector<Engine::LiveBlock> Engine::live_blocks() const {
  const std::lock_guard lock(lock_);
  std::vector<LiveBlock> live;
  for (const auto& [offset, block] : arena_.blocks()) {
    live.push_back({arena_.address(offset), block.size, block.origin, true});
  }
  upstream_.for_each([&](const void* address, const UpstreamBlock& block) {
    live.push_back({address, block.size, block.origin, false});
  });
  return live;
}

void Engine::reset_peak_live() noexcept { live_.reset_peak_live(); }

Engine::Snapshot Engine::snapshot() const {
  Snapshot snapshot;
  snapshot.planning = worker_.times();
  const std::lock_guard lock(lock_);
  snapshot.counters = counters_;
  Counters& counters = snapshot.counters;
  for (ServedCount* count : {&counters.all, &counters.planned, &counters.settled, &counters.settled_planned}) *count += as_planned_;
  for (ServedCount* count : {&counters.all, &counters.unplanned}) *count += bypass_.elsewhere();
  counters.small = small_.read();
  counters.peak_live = live_.peak_live();
  counters.peak_reserved = live_.peak_held();
  snapshot.arena_live = arena_.blocks().live_bytes();
  snapshot.live = live_.live();
  if (const auto totals = options_.observer == nullptr ? std::nullopt : options_.observer->live()) {
    snapshot.live = totals->live;
    counters.peak_live = totals->peak;
  }
  snapshot.arena = arena_.held();
  snapshot.extent = arena_.extent();
  snapshot.peak_arena = arena_.peak_extent();
  snapshot.upstream_trims = arena_.range().upstream_trims();
  snapshot.programs = book_->programs.size();
  snapshot.plans = book_->plans;
  snapshot.plan_height = book_->height;
  for (const Program& program : book_->programs) {
    snapshot.plan_lower_bound = std::max(snapshot.plan_lower_bound, program.lower_bound);
  }
  snapshot.serving = has_served_;
  snapshot.plan_was_loaded = plan_was_loaded_;
  snapshot.reserved = reserved_now();
  snapshot.peak_reserved = options_.upstream_caches ? arena_.range().peak_reserved() : live_.peak_held();
  return snapshot;
}

bool Engine::is_valid() const {
  const std::lock_guard lock(lock_);
  return arena_.is_valid() && round_planned_ <= round_all_;
}

}  // namespace ebbtide
