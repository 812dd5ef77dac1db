#include "allocator/runtime/engine.h"

#include <algorithm>
#include <ctime>
#include <limits>
#include <utility>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

std::uint64_t now_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1000000000ULL + static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace

Engine::Engine(EngineOptions options, std::unique_ptr<ArenaRange> range, StreamFences& fences,
               ProgramBook book)
    : options_(options),
      arena_(std::move(range), fences),
      server_(arena_, options.alignment, options.smallest_planned, options.inline_planning_steps, options.is_for_workspace),
      worker_(std::move(book), options.alignment, options.planning_time),
      tracks_all_(options.observer == nullptr || options.sink != nullptr || !options.observer->live()) {
  book_ = worker_.published();
  plan_was_loaded_ = !book_->programs.empty();
  set_bypass();
}

void Engine::record(Action action, Placement placement, const void* address, Bytes size, StreamId stream,
                    std::uint8_t detail) const noexcept {
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

// Without marks a backward pass tells where rounds end: its first request is looked at, and then the first after it.
void Engine::set_bypass() {
  Bypass::State state;
  state.home = home_;
  if (recorder_.is_prologue()) {
    state.rule = Bypass::Rule::kPrologue;
  } else if (recorder_.is_full()) {
    state.rule = Bypass::Rule::kEverybody;
  } else if (home_is_known_) {
    state.rule = Bypass::Rule::kOtherStreams;
  }
  const bool asks = options_.is_in_backward != nullptr && !(has_seen_backward_ && has_marks_);
  const bool backward_matters = recorder_.is_prologue() && !has_marks_;
  if (asks && backward_matters) {
    state.watches_backward = !has_seen_backward_;
    if (has_seen_backward_) state.rule = home_is_known_ ? Bypass::Rule::kOtherStreams : Bypass::Rule::kNobody;
  }
  bypass_.set(state);
}

// The same with the lock, by what is so now.
Bypass::Reason Engine::reason_to_pass(StreamId stream) const {
  if (recorder_.is_prologue() || recorder_.is_full() || !(stream == home_)) return Bypass::Reason::kElsewhere;
  return Bypass::Reason::kNone;
}

// Whether the request belongs to the running round; otherwise it is counted as one that passes by. With the lock.
bool Engine::belongs_to_round(Bytes size, StreamId stream, std::unique_lock<QuickLock>& lock) {
  const bool is_in_backward = awaits_backward() && options_.is_in_backward();
  const bool is_as_before = home_is_known_ && stream == home_ && !is_news_of_backward(is_in_backward) && !recorder_.is_full();
  if (!is_as_before) [[unlikely]] note_news(stream, is_in_backward, lock);
  if (const Bypass::Reason reason = reason_to_pass(stream); reason != Bypass::Reason::kNone) [[unlikely]] {
    bypass_.count(size);
    return false;
  }
  if (is_in_backward) recorder_.note_backward();
  return true;
}

void Engine::note_news(StreamId stream, bool is_in_backward, std::unique_lock<QuickLock>& lock) {
  bool is_news = !home_is_known_ && !has_marks_ && note_backward(is_in_backward, lock);
  if (!home_is_known_ && !recorder_.is_prologue()) {
    home_ = stream;
    home_is_known_ = is_news = true;
  }
  if (home_is_known_ && stream == home_) is_news |= note_backward(is_in_backward, lock);
  if (is_news || recorder_.is_full()) set_bypass();
}

Engine::Grant Engine::allocate(Bytes size, StreamId stream) noexcept {
  const Passing passing = pass_by(size, stream);
  if (passing == Passing::kNo || passing == Passing::kObserved) return serve(size, stream);
  Grant grant;
  grant.stream = stream;
  return grant;
}

[[gnu::always_inline]] inline void* Engine::hand_out(Offset offset, Bytes size, StreamId stream, Placement placement) {
  void* address = arena_.address(offset);
  live_.add_in_arena(size);
  if (options_.observer != nullptr) options_.observer->placed(address, size, stream);
  emit(Action::kAllocate, placement, address, size, stream);
  return address;
}

// What is done in this order in serve_otherwise(), too, without all that may turn out to be otherwise: that is most of the code,
// and costs more than what is computed (see RoundServer). False: nothing has changed. With the lock.
// A round that follows a program is none that is left to upstream, and came after a mark.
bool Engine::serve_as_planned(Bytes size, StreamId stream, Grant& grant) {
  if (!is_as_before(stream)) [[unlikely]] return false;
  const RoundServer::Next next = server_.plainly_next(size);
  if (next.node == nullptr) [[unlikely]] return false;
  const Origin origin = recorder_.next_origin();
  const RootId root = next.node->root;
  if (!arena_.try_place(next.offset, {size, origin, root, -1}, stream)) [[unlikely]] return false;
  server_.take_next(size);
  recorder_.add(size, static_cast<std::int32_t>(next.index));
  as_planned_.add(size);
  grant.address = hand_out(next.offset, size, stream, Placement::kPlanned);
  grant.kind = Placing::Kind::kPlanned;
  grant.origin = origin;
  grant.root = root;
  return true;
}

Engine::Grant Engine::serve(Bytes size, StreamId stream) noexcept {
  Grant grant;
  grant.stream = stream;
  lock_.lock();
  if (!serve_as_planned(size, stream, grant)) [[unlikely]] {
    serve_otherwise(size, stream, grant);
    return grant;
  }
  lock_.unlock();
  return grant;
}

// Comes with the lock, and leaves without.
void Engine::serve_otherwise(Bytes size, StreamId stream, Grant& grant) {
  std::unique_lock lock(lock_, std::adopt_lock);
  if (!belongs_to_round(size, stream, lock)) return;
  Placing placing = place(size);
  grant.origin = recorder_.add(size, placing.node);
  grant.root = placing.root;
  if (placing.kind == Placing::Kind::kPlanned || placing.kind == Placing::Kind::kGap) [[likely]] {
    arena_.place(placing.offset, {size, grant.origin, placing.root, -1}, stream);
    if (!arena_.is_backed(placing.offset, size) && !make_usable({placing.offset, placing.offset + size}, lock)) [[unlikely]] {
      give_up(placing, size);
    } else {
      grant.address = hand_out(placing.offset, size, stream, placement_of(placing.kind));
    }
  }
  grant.kind = placing.kind;
  grant.is_lasting = !options_.observe_only && (is_in_optimizer_step() || (placing.kind == Placing::Kind::kUpstream && is_first_gradient(size)));
  count(placing, size);
}

// The arena could not grow to a place that was taken.
void Engine::give_up(Placing& placing, Bytes size) {
  if (placing.kind == Placing::Kind::kPlanned) round_planned_ -= size;
  static_cast<void>(arena_.release(placing.offset));
  server_.give_up();
  placing = {Placing::Kind::kDiverged, {}, placing.root, placing.node, Divergence::kNoMemory, {}};
}

Placing Engine::place(Bytes size) {
  if (options_.observe_only) return {};
  if (is_first_gradient(size)) return {.node = server_.stays_for_good(size) ? kStaysForGood : -1};
  const Placing placing = server_.place(size, recorder_);
  if (placing.kind == Placing::Kind::kPlanned) round_planned_ += size;
  if (!server_.is_permanent(placing.node)) round_all_ += size;
  return placing;
}

void* Engine::allocate_anywhere(Bytes size, StreamId stream, const Grant& refused) noexcept {
  if (off_.load(std::memory_order_relaxed) || refused.is_lasting) return nullptr;
  const std::lock_guard lock(lock_);
  const bool is_at_home = home_is_known_ && stream == home_;
  const auto gap = is_at_home ? arena_.lowest_gap(size, options_.alignment, {}) : std::nullopt;
  if (!gap) return nullptr;
  const Origin unrecorded{recorder_.round().serial, std::numeric_limits<std::uint32_t>::max()};
  arena_.place(*gap, {size, refused.origin.round == 0 ? unrecorded : refused.origin, refused.root, -1}, stream);
  return hand_out(*gap, size, stream, Placement::kGap);
}

bool Engine::is_in_optimizer_step() const {
  const Round& round = recorder_.round();
  return round.kind == RoundKind::kOptimizer && round.optimizer_end == kAlive;
}

// In a round like which none is known: a tensor of a parameter's size that the backward makes. It stays until the next step or
// longer, and would keep the arena from being given back for the optimizer's state. In later rounds it is planned, or else
// shares the memory of all others: what is kept apart is of no use to them. Nor is it behind the first step of all.
bool Engine::is_first_gradient(Bytes size) const {
  if (server_.is_following() || options_.is_in_backward == nullptr || !optimizers_seen_.empty()) return false;
  const Round& round = recorder_.round();
  return book_->count_of(round.kind, round.source) == 0 && recorder_.is_constant_size(size) && options_.is_in_backward();
}

// Of upstream's blocks. In this file, because other libraries alone call these: a member of the archive that nothing in
// libebbtide names would not be in it.
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
    round_all_ += size;
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
    bypass_.take_back(size);
    return;
  }
  recorder_.withdraw(refused.origin);
  if (refused.origin.round == recorder_.round().serial) round_all_ -= size;
  counters_.all.take_back(size);
  (refused.kind == Placing::Kind::kDiverged ? counters_.diverged : counters_.unplanned).take_back(size);
  if (is_settled(Placing{.kind = refused.kind})) counters_.settled.take_back(size);
}

void Engine::note_small(Bytes size) noexcept {
  if (!off_.load(std::memory_order_relaxed)) small_.add(size);
}

bool Engine::deallocate(const void* address) noexcept {
  const std::lock_guard lock(lock_);
  if (!arena_.contains(address)) [[unlikely]] return false;
  const Block* block = arena_.release(arena_.offset_of(address));
  if (block == nullptr) [[unlikely]] {
    EBBTIDE_WARN("free of %p, which is not a block of the arena: ignored", address);
    return false;
  }
  live_.remove_from_arena(block->size);
  recorder_.end(*block);
  if (options_.observer != nullptr) options_.observer->released(address, block->size);
  emit(Action::kFree, Placement::kPlanned, address, block->size, home_);
  return true;
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

std::shared_ptr<const ProgramBook> Engine::finish() noexcept {
  worker_.wait_idle(std::chrono::seconds(10));
  worker_.stop();
  const std::lock_guard lock(lock_);
  off_.store(true, std::memory_order_relaxed);
  server_.end();
  return worker_.published();
}

void Engine::before_fork() {
  lock_.lock();
  upstream_.lock_all();
}

void Engine::after_fork_parent() {
  upstream_.unlock_all();
  lock_.unlock();
}

void Engine::after_fork_child() {
  off_.store(true, std::memory_order_relaxed);
  worker_.abandon_after_fork();
  after_fork_parent();
}

}  // namespace ebbtide
