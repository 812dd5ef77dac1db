// Blocks that upstream serves: who they are, as far as a round or the trace wants to know.
#include <mutex>
#include <optional>

#include "allocator/runtime/engine.h"

namespace ebbtide {

void Engine::note_upstream(const void* address, Bytes size, const Grant& grant) noexcept {
  if (address == nullptr || off_.load(std::memory_order_relaxed)) return;
  const UpstreamBlock block{{size, grant.origin, grant.root, -1}, grant.is_lasting};
  if (block.is_recorded()) {
    const std::lock_guard lock(lock_);
    upstream_.insert_recorded(address, block);
  } else {
    upstream_.insert(address, block);
  }
  note_alive(address, size, grant.stream, placement_of(grant.kind));
}

void Engine::observe(const void* address, Bytes size, StreamId stream) noexcept {
  if (address == nullptr || off_.load(std::memory_order_relaxed)) return;
  std::unique_lock lock(lock_);
  if (belongs_to_round(size, stream, lock)) {
    upstream_.insert_recorded(address, {{size, recorder_.add(size, -1), {}, -1}, false});
    count({}, size);
  } else if (tracks_all_) {
    upstream_.insert(address, {{size, {}, {}, -1}, false});
  } else {
    return;
  }
  lock.unlock();
  note_alive(address, size, stream, Placement::kUpstream);
}

void Engine::note_alive(const void* address, Bytes size, StreamId stream, Placement placement) noexcept {
  live_.add(size);
  emit(Action::kAllocate, placement, address, size, stream);
}

void Engine::note_refused(Bytes size, const Grant& refused) noexcept {
  const std::lock_guard lock(lock_);
  if (off_.load(std::memory_order_relaxed)) return;
  if (refused.origin.round == 0) {
    bypass_.take_back(reason_to_pass(refused.stream), size);
    return;
  }
  recorder_.withdraw(refused.origin);
  if (refused.origin.round == recorder_.round().serial) round_all_ -= size;
  counters_.all.take_back(size);
  (refused.kind == Placing::Kind::kDiverged ? counters_.diverged : counters_.unplanned).take_back(size);
  if (is_settled(refused.kind)) counters_.settled.take_back(size);
}

void Engine::note_small(Bytes size) noexcept {
  if (!off_.load(std::memory_order_relaxed)) small_.add(size);
}

std::optional<UpstreamBlock> Engine::forget_upstream(const void* address) noexcept {
  if (live_.live_upstream().value == 0) return std::nullopt;  // mostly: an engine of a device that is not used
  std::optional<UpstreamBlock> block;
  if (tracks_all_) block = upstream_.take(address);
  if (!block) {
    // Its death is written down: in the order in which rounds are cut.
    const std::lock_guard lock(lock_);
    block = upstream_.take_recorded(address);
    if (!block) return std::nullopt;
    recorder_.end(*block);
  }
  live_.remove(block->size);
  emit(Action::kFree, Placement::kUpstream, address, block->size, home());
  return block;
}

}  // namespace ebbtide
