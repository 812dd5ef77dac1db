// The engine of one device: takes requests, records them, serves them from the arena.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "allocator/base/event.h"
#include "allocator/base/quick_lock.h"
#include "allocator/base/export.h"
#include "allocator/runtime/arena.h"
#include "allocator/runtime/arena_observer.h"
#include "allocator/runtime/backoff.h"
#include "allocator/runtime/bypass.h"
#include "allocator/runtime/counters.h"
#include "allocator/runtime/live_bytes.h"
#include "allocator/runtime/plan_worker.h"
#include "allocator/runtime/round_cutter.h"
#include "allocator/runtime/round_recorder.h"
#include "allocator/runtime/round_server.h"
#include "allocator/runtime/upstream_blocks.h"

namespace ebbtide {

struct EngineOptions {
  int device = -1;               // -1: host memory
  Bytes smallest_planned{4096};  // smaller requests go upstream, not recorded
  Bytes alignment{512};
  bool observe_only = false;     // record and report, never serve
  bool upstream_caches = true;   // false: upstream holds what is live and nothing else (host memory)
  std::chrono::milliseconds planning_time{2000};  // at most, for improving a plan; a first one is always made
  std::int64_t inline_planning_steps = 60'000;  // likewise, of one that a request waits for: about 6 ms
  bool (*is_in_backward)() = nullptr;  // whether this thread is inside autograd's backward
  bool (*is_for_workspace)(Bytes size) = nullptr;  // whether this thread asks for what a library will keep for good
  EventSink* sink = nullptr;     // trace; outlives the engine
  ArenaObserver* observer = nullptr;  // told of every block of the arena; outlives the engine
};

// Path of one allocation: allocate() answers with an address in the arena, or null; after null the
// adaptor asks upstream and tells note_upstream() what it got. Frees come back the same way.
//
// Thread-safe. Lock order: growth_, then lock_, then a shard of upstream_ (with torch's: hooks/torch_cuda_upstream_call.h). Under
// lock_ the driver is asked for events and for the device's free memory, never for memory. What no plan can serve (another stream, a round that is left to
// upstream, what comes before the first mark) takes neither of the first two, when it comes and when it goes.
// An engine is never destroyed while blocks of it may be freed: adaptors leak it on purpose.
class EBBTIDE_EXPORT Engine {
 public:
  Engine(EngineOptions options, std::unique_ptr<ArenaRange> range, StreamFences& fences,
         ProgramBook book = {});

  bool wants(Bytes size) const { return size >= options_.smallest_planned; }

  struct Grant {
    void* address = nullptr;  // in the arena; null: upstream must serve the request
    Placing::Kind kind = Placing::Kind::kUpstream;
    Origin origin;
    RootId root;
    StreamId stream;          // as asked for; of no meaning where that was not asked
    bool is_lasting = false;  // to be kept apart from what comes and goes: an optimizer's new state, and a gradient
  };
  // Whether no plan can serve this request: then it is counted, and upstream's. Without a stream: whether none can on any
  // stream. Untracked: the engine need not hear of the block. Observed: nothing is served, and observe() is to be told once
  // upstream has answered, in place of allocate() and note_upstream(). Takes no lock. Requires: wants(size).
  enum class Passing : std::uint8_t { kNo, kTracked, kUntracked, kObserved };
  Passing pass_by(Bytes size) noexcept { return pass_for(bypass_.reason_for_all(), size, Passing::kNo); }
  Passing pass_by(Bytes size, StreamId stream) noexcept {
    return pass_for(bypass_.reason_for(stream), size, options_.observe_only ? Passing::kObserved : Passing::kNo);
  }
  // Whether requests of the home stream may be served: what pass_by() says of one of them is kNo. Takes no lock.
  bool serves_home() const noexcept {
    return !off_.load(std::memory_order_relaxed) && !options_.observe_only && bypass_.lets_home_in();
  }
  // `size` bytes to be used on `stream`; passes by what can. Requires: wants(size).
  Grant allocate(Bytes size, StreamId stream) noexcept;
  // The same of what was asked just now and may not pass.
  [[gnu::hot]] Grant serve(Bytes size, StreamId stream) noexcept;
  // Upstream cannot serve what allocate() refused: any free place of the arena, also one that the plan still needs.
  // Null when there is none. Requires: the request was refused just now, and upstream was not told of it.
  void* allocate_anywhere(Bytes size, StreamId stream, const Grant& refused) noexcept;
  // Upstream has served a request for which allocate() granted nothing.
  void note_upstream(const void* address, Bytes size, const Grant& grant) noexcept;
  // Upstream has served a request that is only to be written down: it takes the lock once. See Passing.
  void observe(const void* address, Bytes size, StreamId stream) noexcept;
  // Upstream could not serve it either: it is as if it had not been asked for.
  void note_refused(Bytes size, const Grant& refused) noexcept;
  // A request below the threshold; only counted.
  void note_small(Bytes size) noexcept;

  // Whether a live block at `address` is the arena's. Takes no lock.
  bool owns(const void* address) const noexcept { return arena_.owns(address); }
  // Frees a block of the arena. False when there is none at this address.
  [[gnu::hot]] bool deallocate(const void* address) noexcept;
  // A block that note_upstream was told of is being freed; none if it was not.
  std::optional<UpstreamBlock> forget_upstream(const void* address) noexcept;
  // The block is used on `stream` too. False when it is not the arena's.
  bool record_stream(const void* address, StreamId stream) noexcept;
  // Size of the arena block that holds `address`, and its first byte; none when it is not the arena's.
  struct Extent { const void* begin = nullptr; Bytes size; };
  Extent block_at(const void* address) const noexcept;

  // What is alive, as far as it was seen: the arena's blocks by address, then upstream's in no order.
  struct LiveBlock {
    const void* address = nullptr;
    Bytes size;
    Origin origin;
    bool in_arena = false;
  };
  std::vector<LiveBlock> live_blocks() const;

  // The one with which the observer is told of blocks.
  QuickLock& lock() const noexcept { return lock_; }

  // The stream whose requests are planned.
  StreamId home() const noexcept { return bypass_.home(); }
  // First byte of the arena; null while it is empty.
  const void* base() const noexcept { return arena_.base(); }

  // `input`: the extents of what the round is about (batch, length), empty when not known.
  void mark(MarkKind kind, std::uint64_t source, const Extents& input = {}) noexcept;
  // Waits for the plans being made, and begins to serve from them if the running round is still empty.
  void settle() noexcept;
  void reset_peak_live() noexcept;
  // Gives back the arena's memory above its highest live block. Returns how much.
  Bytes release_idle() noexcept;
  // Gives back idle memory between its blocks, about as much as is wanted. Returns how much. It stays away until a plan has
  // something there, or the arena grows: each costs calls of the driver, so this is for when memory is out.
  Bytes release_inside(Bytes wanted) noexcept;
  // Nothing is served from here on; what is live stays valid. Returns what was learnt.
  std::shared_ptr<const ProgramBook> finish() noexcept;

  struct Snapshot {
    Counters counters;
    Bytes live, arena, peak_arena, arena_live, reserved, peak_reserved;
    Bytes extent;  // of the arena's addresses: what it holds and the holes in it
    Bytes plan_height, plan_lower_bound;
    std::int64_t upstream_trims = 0;
    std::size_t programs = 0;
    std::int64_t plans = 0;
    PlanWorker::Times planning;
    bool serving = false;
    bool plan_was_loaded = false;
  };
  Snapshot snapshot() const;

  // What the planner says of training as it goes at present: the plan of the last training round that has ended. Height 0:
  // that round had no plan. Budget: the most that the device could give the arena at this moment. May ask the driver.
  struct StepPlan {
    Bytes height, budget;
    bool fits() const { return height <= budget; }
  };
  StepPlan step_plan() const;
  const EngineOptions& options() const { return options_; }
  bool is_valid() const;

  // Around fork: nothing may be half done in the child, and the child serves nothing.
  void before_fork();
  void after_fork_parent();
  void after_fork_child();

 private:
  // Has memory behind a place that is above the extent or in a hole.
  [[gnu::cold]] bool make_usable(Span place, std::unique_lock<QuickLock>& lock);
  void adopt_extent();
  void note_trimmed();
  // Nothing is known of a request that was not known of the one before: it belongs to the running round.
  bool is_as_before(StreamId stream) const {
    return home_is_known_ && stream == home_ && !awaits_backward() && !recorder_.is_full();
  }
  EBBTIDE_LOCAL bool serve_as_planned(Bytes size, StreamId stream, Grant& grant);
  [[gnu::noinline]] EBBTIDE_LOCAL void serve_otherwise(Bytes size, StreamId stream, Grant& grant);
  EBBTIDE_LOCAL void count(const Placing& placing, Bytes size);
  [[gnu::cold]] EBBTIDE_LOCAL void note_divergence(const Placing& placing, Bytes size);
  void cut(RoundKind kind, std::uint32_t source, const Extents& input, std::unique_lock<QuickLock>& lock);
  void note_input(std::uint32_t source, const Extents& input);
  // Whether it is of use to know if the request is made in a backward pass. It is asked of torch, which takes a while.
  bool awaits_backward() const {
    if (has_marks_ && !server_.may_begin_backward()) [[likely]] return false;
    if (options_.is_in_backward == nullptr) return false;
    const bool is_known = has_seen_backward_ && recorder_.round().backward_begin != kAlive;
    return !has_marks_ || !is_known;
  }
  // Whether note_backward() has something to note.
  bool is_news_of_backward(bool is_in_backward) const {
    return is_in_backward != has_seen_backward_ && !(has_seen_backward_ && has_marks_);
  }
  // Of a request that is not as those before it: its stream, a backward, or how many there were.
  [[gnu::cold]] EBBTIDE_LOCAL void note_news(StreamId stream, bool is_in_backward, std::unique_lock<QuickLock>& lock);
  // True when a backward began, or ended a round: what may pass by is another matter then.
  bool note_backward(bool is_in_backward, std::unique_lock<QuickLock>& lock);
  EBBTIDE_LOCAL bool is_in_optimizer_step() const;
  EBBTIDE_LOCAL bool is_first_gradient(Bytes size) const;
  EBBTIDE_LOCAL bool is_settled(const Placing& placing) const;
  bool is_worth_learning() const;
  bool is_of_new_input(const Round& round) const;
  static bool may_rest(const Round& round);
  void begin_first_step();
  bool has_room_for_trial() const;
  void begin_serving();
  void shrink_to(Bytes kept, std::unique_lock<QuickLock>& lock);
  void shrink_to_plan(std::unique_lock<QuickLock>& lock);
  EBBTIDE_LOCAL Placing place(Bytes size);
  [[gnu::cold]] EBBTIDE_LOCAL void give_up(Placing& placing, Bytes size);
  void note_whether_it_fits();
  void note_step_plan();
  Bytes height_in_force() const;
  Backoff& backoff(RoundKind kind) { return backoffs_[static_cast<std::size_t>(kind)]; }
  const Backoff& backoff(RoundKind kind) const { return backoffs_[static_cast<std::size_t>(kind)]; }
  void adopt_latest();
  RoundState round_state() const;
  // For every request, so here: `otherwise` where nothing lets it pass.
  Passing pass_for(Bypass::Reason reason, Bytes size, Passing otherwise) noexcept {
    if (off_.load(std::memory_order_relaxed)) return Passing::kTracked;
    if (reason == Bypass::Reason::kNone) return otherwise;
    if (bypass_.watches_backward() && options_.is_in_backward()) return Passing::kNo;
    bypass_.count(size);
    return tracks_all_ ? Passing::kTracked : Passing::kUntracked;
  }
  void emit(Action action, Placement placement, const void* address, Bytes size, StreamId stream,
            std::uint8_t detail = 0) const noexcept {
    if (options_.sink != nullptr) [[unlikely]] record(action, placement, address, size, stream, detail);
  }
  void record(Action action, Placement placement, const void* address, Bytes size, StreamId stream,
              std::uint8_t detail) const noexcept;
  EBBTIDE_LOCAL Bypass::Reason reason_to_pass(StreamId stream) const;
  EBBTIDE_LOCAL bool belongs_to_round(Bytes size, StreamId stream, std::unique_lock<QuickLock>& lock);
  void note_alive(const void* address, Bytes size, StreamId stream, Placement placement) noexcept;
  void set_bypass();
  EBBTIDE_LOCAL void* hand_out(Offset offset, Bytes size, StreamId stream, Placement placement);
  Bytes reserved_now() const;

  const EngineOptions options_;
  mutable QuickLock lock_;     // guards everything below but growth_, worker_, atomics and what is thread-safe itself
  std::mutex growth_;          // serialises the range's driver calls
  Arena arena_;
  RoundRecorder recorder_;
  RoundServer server_;
  RoundCutter cutter_;
  Counters counters_;          // without what is in the next
  ServedCount as_planned_;     // of serve_as_planned(): settled, and planned
  Bytes as_planned_before_;    // when the running round began
  mutable UpstreamBlocks upstream_;
  LiveBytes live_;
  Bypass bypass_;
  SharedCount small_;
  std::shared_ptr<const ProgramBook> book_;
  PlanWorker worker_;
  StreamId home_{};            // the stream whose order the programs describe
  bool home_is_known_ = false;
  bool has_seen_backward_ = false;
  bool has_marks_ = false;     // somebody said where a round begins
  bool plan_was_loaded_ = false;
  bool has_served_ = false;
  std::set<std::uint32_t> optimizers_seen_;  // by source
  std::uint32_t last_learnt_round_ = 0;
  ProgramBook::Use last_served_;  // since the start, by program
  std::array<Backoff, kRoundKinds> backoffs_;  // by kind of round
  int rounds_as_planned_ = 1 << 16;            // in a row, since one that was served first-fit; none was yet
  Bytes step_height_;          // of the plan of the last training round that has ended; 0: it had none
  Bytes round_planned_;        // of the running round: what had a planned place; no more than round_all_
  Bytes round_all_;            // and all of it, but for what stays for good
  std::chrono::milliseconds patience_{3000};  // left for waiting for first plans
  std::atomic<bool> off_{false};
  const bool tracks_all_;      // what passes by, too: nobody else knows what is alive, or there is a trace to write
};

}  // namespace ebbtide
