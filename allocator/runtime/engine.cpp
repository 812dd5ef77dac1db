#include "allocator/runtime/engine.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <utility>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

std::uint64_t now_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1000000000ULL + static_cast<std::uint64_t>(time.tv_nsec);
}

Placement placement_of(Placing::Kind kind) {
  switch (kind) {
    case Placing::Kind::kUpstream: return Placement::kUpstream;
    case Placing::Kind::kPlanned: return Placement::kPlanned;
    case Placing::Kind::kGap: return Placement::kGap;
    case Placing::Kind::kDiverged: return Placement::kDiverged;
  }
  return Placement::kUpstream;
}

}  // namespace

Engine::Engine(EngineOptions options, std::unique_ptr<ArenaRange> range, StreamFences& fences,
               ProgramBook book)
    : options_(options),
      arena_(std::move(range), fences),
      server_(arena_, options.alignment, options.smallest_planned),
      worker_(std::move(book), options.alignment, options.planning_time) {
  book_ = worker_.published();
  plan_was_loaded_ = !book_->programs.empty();
}

void Engine::emit(Action action, Placement placement, const void* address, Bytes size, StreamId stream,
                  std::uint8_t detail) const noexcept {
  if (options_.sink == nullptr) return;
  EventRecord event;
  event.time_ns = now_ns();
  event.address = reinterpret_cast<std::uintptr_t>(address);
  event.bytes = size.value;
  event.stream = stream.value;
  event.action = action;
  event.placement = placement;
  event.detail = detail;
  if (action == Action::kAllocate && options_.is_in_backward != nullptr && options_.is_in_backward()) event.detail = kInBackward;
  event.device = static_cast<std::int8_t>(options_.device);
  options_.sink->record(event);
}

Engine::Grant Engine::allocate(Bytes size, StreamId stream) noexcept {
  Grant grant;
  if (off_.load(std::memory_order_relaxed)) return grant;
  std::unique_lock lock(lock_);
  if (!home_is_known_ && !recorder_.is_prologue()) {
    home_ = stream;
    home_is_known_ = true;
  }
  if (!home_is_known_ && !has_marks_) note_backward(lock);
  if (recorder_.is_prologue() || recorder_.is_full() || !(stream == home_)) {
    counters_.unplanned.add(size);
    counters_.all.add(size);
    return grant;
  }
  note_backward(lock);
  if (options_.is_in_backward != nullptr && options_.is_in_backward()) recorder_.note_backward();
  Placing placing = place(size);
  grant.origin = recorder_.add(size, placing.node);
  grant.root = placing.root;
  if (placing.kind == Placing::Kind::kPlanned || placing.kind == Placing::Kind::kGap) {
    arena_.place(placing.offset, {size, grant.origin, placing.root, -1, {}}, stream);
    const Bytes needed{placing.offset.value + size.value};
    if (needed > arena_.extent() && !grow(needed, lock)) {
      static_cast<void>(arena_.release(placing.offset));
      server_.give_up();
      placing = {Placing::Kind::kDiverged, {}, placing.root, placing.node, Divergence::kNoMemory, {}};
    } else {
      grant.address = arena_.address(placing.offset);
      round_all_ += size;
      note_live();
      if (options_.observer != nullptr) options_.observer->placed(grant.address, size, stream);
      emit(Action::kAllocate, placement_of(placing.kind), grant.address, size, stream);
    }
  }
  grant.kind = placing.kind;
  grant.is_lasting = is_in_optimizer_step() && !options_.observe_only;
  count(placing, size);
  return grant;
}

Placing Engine::place(Bytes size) {
  Placing placing;
  if (options_.observe_only) return placing;
  placing = server_.place(size, recorder_);
  if (placing.kind == Placing::Kind::kPlanned) round_planned_ += size;
  // What is followed on trial is not served.
  if (backoff(recorder_.round().kind).is_on_trial()) placing = {Placing::Kind::kUpstream, {}, placing.root, placing.node, {}, {}};
  return placing;
}

void* Engine::allocate_anywhere(Bytes size, StreamId stream, const Grant& refused) noexcept {
  if (off_.load(std::memory_order_relaxed) || refused.is_lasting) return nullptr;
  const std::lock_guard lock(lock_);
  const bool was_recorded = refused.origin.round != 0 && stream == home_;
  const auto gap = was_recorded ? arena_.lowest_gap(size, options_.alignment, {}) : std::nullopt;
  if (!gap) return nullptr;
  arena_.place(*gap, {size, refused.origin, refused.root, -1, {}}, stream);
  note_live();
  void* address = arena_.address(*gap);
  if (options_.observer != nullptr) options_.observer->placed(address, size, stream);
  emit(Action::kAllocate, Placement::kGap, address, size, stream);
  return address;
}

bool Engine::is_in_optimizer_step() const {
  const Round& round = recorder_.round();
  return round.kind == RoundKind::kOptimizer && round.optimizer_end == kAlive;
}

// What an optimizer creates in its step is kept for good: it was never the plan's to serve.
bool Engine::is_settled(Placing::Kind kind) const {
  return has_served_ && !(is_in_optimizer_step() && kind == Placing::Kind::kUpstream);
}

void Engine::count(const Placing& placing, Bytes size) {
  counters_.all.add(size);
  const bool settled = is_settled(placing.kind);
  if (settled) counters_.settled.add(size);
  switch (placing.kind) {
    case Placing::Kind::kUpstream: counters_.unplanned.add(size); break;
    case Placing::Kind::kPlanned:
      counters_.planned.add(size);
      if (settled) counters_.settled_planned.add(size);
      break;
    case Placing::Kind::kGap: counters_.gap.add(size); break;
    case Placing::Kind::kDiverged: counters_.diverged.add(size); break;
  }
  if (!placing.cause) return;
  counters_.divergences[static_cast<std::size_t>(*placing.cause)] += 1;
  if (!counters_.first_divergence.empty() && log_level() < LogLevel::kDebug) return;
  char text[240];
  int length = std::snprintf(text, sizeof(text), "round %u, request %zu, %s: %s", recorder_.round().serial,
                             recorder_.round().requests.size() - 1, to_string(size).c_str(), to_string(*placing.cause));
  if (*placing.cause == Divergence::kPlaceTaken) {
    std::snprintf(text + length, sizeof(text) - static_cast<std::size_t>(length), " by request %u of round %u",
                  placing.holder.request, placing.holder.round);
  }
  EBBTIDE_DEBUG("%s", text);
  if (!counters_.first_divergence.empty()) return;
  counters_.first_divergence = text;
}

void Engine::note_live() {
  counters_.peak_live = std::max(counters_.peak_live, counters_.upstream_live + arena_.blocks().live_bytes());
  if (!options_.upstream_caches) counters_.peak_reserved = std::max(counters_.peak_reserved, reserved_now());
}

Bytes Engine::reserved_now() const {
  return options_.upstream_caches ? arena_.range().reserved() : arena_.extent() + counters_.upstream_live;
}

void Engine::note_upstream(const void* address, Bytes size, StreamId stream, const Grant& grant) noexcept {
  if (address == nullptr) return;
  const std::lock_guard lock(lock_);
  if (off_.load(std::memory_order_relaxed)) return;
  upstream_[address] = Block{size, grant.origin, grant.root, -1, {}};
  counters_.upstream_live += size;
  if (grant.origin.round == recorder_.round().serial) round_all_ += size;
  note_live();
  emit(Action::kAllocate, placement_of(grant.kind), address, size, stream);
}

void Engine::note_refused(Bytes size, StreamId stream, const Grant& refused) noexcept {
  const std::lock_guard lock(lock_);
  if (off_.load(std::memory_order_relaxed)) return;
  const bool was_recorded = refused.origin.round != 0 && stream == home_;
  if (was_recorded) recorder_.withdraw(refused.origin);
  counters_.all.take_back(size);
  (refused.kind == Placing::Kind::kDiverged ? counters_.diverged : counters_.unplanned).take_back(size);
  if (was_recorded && is_settled(refused.kind)) counters_.settled.take_back(size);
}

void Engine::note_small(Bytes size) noexcept {
  const std::lock_guard lock(lock_);
  counters_.small.add(size);
}

StreamId Engine::home() const noexcept {
  const std::lock_guard lock(lock_);
  return home_;
}

bool Engine::owns(const void* address) const noexcept {
  const std::lock_guard lock(lock_);
  return arena_.contains(address);
}

bool Engine::deallocate(const void* address) noexcept {
  const std::lock_guard lock(lock_);
  const std::optional<Block> block = arena_.release(arena_.offset_of(address));
  if (!block) {
    EBBTIDE_WARN("free of %p, which is not a block of the arena: ignored", address);
    return false;
  }
  recorder_.end(*block);
  if (options_.observer != nullptr) options_.observer->released(address, block->size);
  emit(Action::kFree, Placement::kPlanned, address, block->size, home_);
  return true;
}

void Engine::forget_upstream(const void* address) noexcept {
  const std::lock_guard lock(lock_);
  const auto found = upstream_.find(address);
  if (found == upstream_.end()) return;
  recorder_.end(found->second);
  counters_.upstream_live -= found->second.size;
  emit(Action::kFree, Placement::kUpstream, address, found->second.size, home_);
  upstream_.erase(found);
}

bool Engine::record_stream(const void* address, StreamId stream) noexcept {
  const std::lock_guard lock(lock_);
  if (!arena_.contains(address)) return false;
  Block* block = arena_.find(arena_.offset_of(address));
  if (block == nullptr || stream == home_) return block != nullptr;
  const auto& used = block->used_on;
  if (std::find(used.begin(), used.end(), stream) == used.end()) block->used_on.push_back(stream);
  emit(Action::kRecordStream, Placement::kPlanned, address, block->size, stream);
  return true;
}

Engine::Extent Engine::block_at(const void* address) const noexcept {
  const std::lock_guard lock(lock_);
  if (!arena_.contains(address)) return {};
  const Offset offset = arena_.offset_of(address);
  const auto& blocks = arena_.blocks().blocks();
  auto after = blocks.upper_bound(offset);
  if (after == blocks.begin()) return {};
  const auto& [begin, block] = *std::prev(after);
  if (offset >= begin + block.size) return {};
  return {arena_.address(begin), block.size};
}

std::vector<Engine::LiveBlock> Engine::live_blocks() const {
  const std::lock_guard lock(lock_);
  std::vector<LiveBlock> live;
  for (const auto& [offset, block] : arena_.blocks().blocks()) {
    live.push_back({arena_.address(offset), block.size, block.origin, true});
  }
  for (const auto& [address, block] : upstream_) live.push_back({address, block.size, block.origin, false});
  return live;
}

void Engine::reset_peak_live() noexcept {
  const std::lock_guard lock(lock_);
  counters_.peak_live = Bytes{};
  note_live();
}

std::shared_ptr<const ProgramBook> Engine::finish() noexcept {
  worker_.wait_idle(std::chrono::seconds(10));
  worker_.stop();
  const std::lock_guard lock(lock_);
  off_.store(true, std::memory_order_relaxed);
  server_.end();
  return worker_.published();
}

Engine::Snapshot Engine::snapshot() const {
  Snapshot snapshot;
  snapshot.planning = worker_.times();
  const std::lock_guard lock(lock_);
  snapshot.counters = counters_;
  snapshot.arena_live = arena_.blocks().live_bytes();
  snapshot.live = counters_.upstream_live + snapshot.arena_live;
  snapshot.arena = arena_.extent();
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
  snapshot.peak_reserved = options_.upstream_caches ? arena_.range().peak_reserved() : counters_.peak_reserved;
  return snapshot;
}

bool Engine::is_valid() const {
  const std::lock_guard lock(lock_);
  return arena_.is_valid();
}

void Engine::after_fork_child() {
  off_.store(true, std::memory_order_relaxed);
  worker_.abandon_after_fork();
  lock_.unlock();
}

}  // namespace ebbtide
