#include "allocator/runtime/engine.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <utility>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

constexpr std::chrono::milliseconds kLongestWait{1000};  // for one plan, while there is patience left
constexpr std::uint32_t kEager = 16;        // rounds of one program that are learnt without a pause
constexpr std::size_t kManyPrograms = 20;
constexpr std::uint32_t kPause = 32;        // rounds between learning, once there are many programs
constexpr Bytes kWorthShrinking{64 * kMiB.value};
constexpr std::int64_t kShrinkingPart = 128;  // and at least this part of the arena
constexpr std::int64_t kGrowthSteps = 32;  // the arena grows by at least this part of its height

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
  round_all_ += size;
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

// Programs that give no hints at all (C++ without a call of ours) are cut where a backward has ended.
void Engine::note_backward(std::unique_lock<std::mutex>& lock) {
  if (options_.is_in_backward == nullptr || (has_seen_backward_ && has_marks_)) return;
  const bool is_in_backward = options_.is_in_backward();
  if (!has_marks_ && has_seen_backward_ && !is_in_backward) cut(RoundKind::kStep, 0, {}, lock);
  has_seen_backward_ = has_seen_backward_ || is_in_backward;
}

bool Engine::is_in_optimizer_step() const {
  const Round& round = recorder_.round();
  return round.kind == RoundKind::kOptimizer && round.optimizer_end == kAlive;
}

// The place is taken already, so that the lock can be given up while the driver is called.
bool Engine::grow(Bytes needed, std::unique_lock<std::mutex>& lock) {
  const Bytes height = std::max(server_.height(), needed);
  const Bytes step{height.value / kGrowthSteps};
  const bool in_steps = arena_.range().grows_in_place();
  const Bytes target = in_steps ? std::min(std::max(needed, arena_.extent() + step), height) : height;
  lock.unlock();
  const std::lock_guard growing(growth_);
  Status grown = arena_.grow_to(target);
  if (!grown.ok() && target > needed) grown = arena_.grow_to(needed);
  lock.lock();
  arena_.adopt_extent();
  if (grown.ok()) {
    emit(Action::kArenaGrow, Placement::kPlanned, nullptr, arena_.extent(), home_);
  } else {
    EBBTIDE_INFO("the arena cannot grow to %s: %s", to_string(needed).c_str(), grown.error().message.c_str());
  }
  return grown.ok();
}

void Engine::count(const Placing& placing, Bytes size) {
  counters_.all.add(size);
  // What an optimizer creates in its step is kept for good: it was never the plan's to serve.
  const bool settled = has_served_ && !(is_in_optimizer_step() && placing.kind == Placing::Kind::kUpstream);
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
  note_live();
  emit(Action::kAllocate, placement_of(grant.kind), address, size, stream);
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

RoundState Engine::round_state() const {
  RoundState state;
  state.is_prologue = recorder_.is_prologue();
  state.is_empty = recorder_.round().empty();
  state.kind = recorder_.round().kind;
  state.has_seen_backward = has_seen_backward_;
  state.live = recorder_.live_bytes();
  state.peak = recorder_.peak_bytes();
  return state;
}

void Engine::mark(MarkKind kind, std::uint64_t source, const Extents& input) noexcept {
  if (off_.load(std::memory_order_relaxed)) return;
  if (options_.is_in_backward != nullptr && options_.is_in_backward()) return;  // a recomputation
  std::unique_lock lock(lock_);
  has_marks_ = true;
  emit(Action::kMark, Placement::kUpstream, nullptr, {}, home_, static_cast<std::uint8_t>(kind));
  if (kind == MarkKind::kOptimizerEnd && recorder_.round().kind == RoundKind::kOptimizer) {
    recorder_.note_optimizer_end();
  }
  const RoundKind round_kind = RoundCutter::kind_of(kind);
  switch (cutter_.decide(kind, round_state())) {
    case RoundCutter::Decision::kIgnore: note_input(input); return;
    case RoundCutter::Decision::kDescribe:
      recorder_.begin_again(round_kind, cutter_.ordinal(source), arena_.blocks(), upstream_, *book_);
      recorder_.note_input(input);
      begin_serving();
      return;
    case RoundCutter::Decision::kCut: cut(round_kind, cutter_.ordinal(source), input, lock); return;
  }
}

// A round that began before its input was known: `ebbtide.step()`, then the batch, then the forward.
void Engine::note_input(const Extents& input) {
  if (input.empty() || !recorder_.round().extents.empty()) return;
  recorder_.note_input(input);
  server_.note_input(input);
}

bool Engine::is_worth_learning() const {
  if (recorder_.round().empty() || recorder_.is_prologue() || recorder_.is_full()) return false;
  if (backoff(recorder_.round().kind).is_resting()) return false;
  const std::uint32_t serial = recorder_.round().serial;
  if (!server_.is_following()) {
    // Nothing like it is known: worth it, unless nothing ever repeats.
    return book_->programs.size() < kManyPrograms || serial - last_learnt_round_ >= kPause;
  }
  const bool differs = server_.deviated() || server_.outgrew_plans() || !server_.fits_residents() ||
                       server_.was_outlived(recorder_.round());
  // A program that never settles is learnt ever more rarely.
  const Program& program = *server_.program();
  const std::uint32_t doublings = program.learnt <= kEager ? 0 : std::min(program.learnt - kEager, 12U);
  return differs && serial - program.last_round >= (1U << doublings) - 1;
}

void Engine::cut(RoundKind kind, std::uint32_t source, const Extents& input, std::unique_lock<std::mutex>& lock) {
  counters_.rounds += recorder_.is_prologue() ? 0 : 1;
  const bool followed = server_.is_following() && !server_.deviated();
  counters_.planned_rounds += followed ? 1 : 0;
  counters_.inline_plans += server_.inline_plans();
  counters_.inline_ns += server_.inline_ns();
  counters_.longest_inline_ns = std::max(counters_.longest_inline_ns, server_.inline_ns());
  emit(Action::kRound, Placement::kUpstream, nullptr, {counters_.rounds}, home_, followed ? 1 : 0);
  if (options_.sink != nullptr) emit(Action::kReserved, Placement::kUpstream, nullptr, reserved_now(), home_);
  const bool learn = is_worth_learning();
  note_whether_it_fits();
  EBBTIDE_DEBUG("round %u: kind %d, %zu requests, followed program %u, %d inline plans, %s", recorder_.round().serial,
                static_cast<int>(recorder_.round().kind), recorder_.round().requests.size(),
                server_.is_following() ? server_.program()->id : 0U, server_.inline_plans(),
                learn ? "worth learning" : "as known");
  if (server_.is_following()) last_served_[server_.program()->id] = recorder_.round().serial;
  if (learn) last_learnt_round_ = recorder_.round().serial;
  server_.end();
  Round finished = recorder_.next(kind, source, arena_.blocks(), upstream_, *book_);
  recorder_.note_input(input);
  has_seen_backward_ = false;
  if (learn && !options_.observe_only) {
    worker_.submit(std::move(finished), last_served_);
    if (patience_.count() > 0) {
      lock.unlock();
      const auto begin = std::chrono::steady_clock::now();
      worker_.wait_idle(std::min(patience_, kLongestWait));
      lock.lock();
      patience_ -= std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    }
  }
  adopt_latest();
  shrink_to_plan(lock);
  begin_serving();
}

// Rounds that nothing is known of say nothing about plans.
void Engine::note_whether_it_fits() {
  const RoundKind kind = recorder_.round().kind;
  const bool is_any_known = std::any_of(book_->programs.begin(), book_->programs.end(),
                                        [kind](const Program& program) { return program.kind == kind; });
  const bool was_resting = backoff(kind).is_resting();
  if (is_any_known && kind != RoundKind::kOptimizer) backoff(kind).note(round_planned_, round_all_);
  if (!was_resting && backoff(kind).is_resting()) {
    EBBTIDE_INFO("rounds of kind %d do not repeat: they are left to upstream for a while", static_cast<int>(kind));
  }
  round_planned_ = round_all_ = Bytes{};
}

void Engine::begin_serving() {
  const Round& round = recorder_.round();
  server_.end();
  if (backoff(round.kind).is_resting()) return;
  // An optimizer's first step creates its state, of the sizes that its later steps use for a moment.
  const bool is_first_step = round.kind == RoundKind::kOptimizer && optimizers_seen_.insert(round.source).second;
  if (options_.observe_only || is_first_step) return;
  server_.begin(book_, recorder_, last_served_);
  has_served_ = has_served_ || server_.is_following();
}

Bytes Engine::height_in_force() const {
  const bool all_serve = std::none_of(backoffs_.begin(), backoffs_.end(), [](const Backoff& backoff) {
    return backoff.is_resting() || backoff.is_on_trial();
  });
  if (all_serve) return book_->height;
  Bytes height;
  for (const Program& program : book_->programs) {
    const Backoff& of_kind = backoff(program.kind);
    if (!of_kind.is_resting() && !of_kind.is_on_trial()) height = std::max(height, program.height);
  }
  return height;
}

// A better plan, or the end of an exceptional round, leaves memory above the plan that nothing needs.
void Engine::shrink_to_plan(std::unique_lock<std::mutex>& lock) {
  const Bytes needed = std::max(height_in_force(), Bytes{arena_.blocks().highest_end().value});
  const Bytes spare = arena_.extent() - needed;
  if (spare < kWorthShrinking || spare.value < arena_.extent().value / kShrinkingPart) return;
  shrink_to(needed, lock);
}

// What is kept is settled with both locks: whoever places a block above it meanwhile is not cut off.
void Engine::shrink_to(Bytes kept, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  const std::lock_guard growing(growth_);
  lock.lock();
  kept = std::max(kept, Bytes{arena_.blocks().highest_end().value});
  if (kept >= arena_.extent()) return;
  arena_.withdraw_to(kept);
  lock.unlock();
  arena_.shrink_to(kept);
  lock.lock();
  arena_.adopt_extent();
  emit(Action::kArenaTrim, Placement::kPlanned, nullptr, arena_.extent(), home_);
}

void Engine::adopt_latest() {
  std::shared_ptr<const ProgramBook> latest = worker_.published();
  if (latest == book_) return;
  if (!counters_.observed_peak_known && !plan_was_loaded_ && !options_.observe_only) {
    counters_.observed_peak_known = true;
    counters_.observed_peak_reserved = options_.upstream_caches ? arena_.range().peak_reserved() : counters_.peak_reserved;
  }
  book_ = std::move(latest);
  recorder_.resolve(*book_);
  emit(Action::kPlan, Placement::kPlanned, nullptr, book_->height, home_);
}

void Engine::settle() noexcept {
  worker_.wait_idle(std::chrono::seconds(60));
  std::unique_lock lock(lock_);
  // A running round goes on with the book it began with; an empty one can take the new one.
  if (!recorder_.round().empty() || recorder_.is_prologue()) return;
  adopt_latest();
  begin_serving();
}

void Engine::reset_peak_live() noexcept {
  const std::lock_guard lock(lock_);
  counters_.peak_live = Bytes{};
  note_live();
}

Bytes Engine::release_idle() noexcept {
  const std::unique_lock growing(growth_, std::try_to_lock);
  if (!growing.owns_lock()) return {};
  Bytes kept;
  Bytes before;
  {
    const std::unique_lock lock(lock_, std::try_to_lock);
    if (!lock.owns_lock()) return {};
    kept = Bytes{arena_.blocks().highest_end().value};
    before = arena_.extent();
    if (kept >= before) return {};
    arena_.withdraw_to(kept);
  }
  arena_.shrink_to(kept);
  const std::lock_guard lock(lock_);
  arena_.adopt_extent();
  emit(Action::kArenaTrim, Placement::kPlanned, nullptr, arena_.extent(), home_);
  return before - arena_.extent();
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
