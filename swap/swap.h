// Swaps bytes between a device and pinned host memory: out behind the work that made them, in ahead
// of the work that needs them, ordered by events alone.
//
//   compute stream  |layer i  |layer i+1|await_out(i)|layer i+2 ...        |await_in(i)|backward i
//   out-stream                |copy of i|
//   in-stream                                                |copy of i|
//
// The order of streams follows MEMO, arXiv 2407.12117, section 4.1 ("rounding buffers").
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>

#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "allocator/device/copy_device.h"
#include "swap/copy_clock.h"
#include "swap/copy_streams.h"
#include "swap/event_pool.h"
#include "swap/pinned_slab.h"
#include "swap/places.h"
#include "swap/swap_log.h"
#include "swap/swap_stats.h"
#include "swap/ticket_planner.h"

namespace ebbtide {

// Names bytes that were swapped out, until they are released. Never reused.
struct Ticket {
  std::uint64_t value = 0;
  constexpr bool operator==(const Ticket&) const = default;
};

// One of several stretches of memory that leave together.
struct SwapSource {
  const void* address = nullptr;
  Bytes bytes;
};

// Owns two copy streams and the slab. Thread-safe: one lock, held while work is queued, so that
// each swap's wait, copy and record stand together in their stream; never held while the host
// waits, except after errors. Queueing is a handful of driver calls; growing the slab pins memory.
//
// Note [Order without the host]
// Four things could go wrong, and each is prevented by an event:
//  1. the copy out reads before the source is written     out-stream waits for compute at swap_out
//  2. the source is overwritten before it is copied       compute waits for the copy at await_out
//  3. the copy in overwrites memory still in use, or      in-stream waits for compute at swap_in,
//     reads host bytes not written yet (Megatron #7398)   and for the ticket's own copy out
//  4. host bytes are overwritten while a copy in reads    out-stream waits, before its next copy,
//     them, after release and reuse (torchtune #1867)     for those of all released tickets
// Copies of a stream run in order: behind one of them is behind all before it. So a layer that returns
// last piece first costs one wait for copies out, and all that was released since the last copy out one
// wait for copies in.
//
// Invariants: (1) the places taken are those of the live tickets; (2) host bytes never exceed the
// budget.
class Swap {
 public:
  struct Options {
    Bytes host_budget;
    EventSink* sink = nullptr;  // a trace's, which outlives the swap; null: nobody is told
    int device = 0;             // as the trace numbers it
  };

  // kInvalidArgument for a budget that is negative or beyond PinnedSlab::kMaxBudget.
  static Result<std::unique_ptr<Swap>> open(std::unique_ptr<CopyDevice> device,
                                            const Options& options);
  // Waits until every copy is through.
  ~Swap();
  Swap(const Swap&) = delete;
  Swap& operator=(const Swap&) = delete;

  // Pins so much at once, so that it need not be done piece by piece while training.
  // kOutOfHostMemory when it cannot be had; what is there stays.
  Status reserve(Bytes bytes);
  // The largest swap_out that would succeed now, up to `wanted`, as far as is known without
  // pinning.
  Bytes room(Bytes wanted) const;

  // Copies the sources to the host, behind the work queued on `compute` so far; all under one
  // ticket, for the price of one but for the copies. In it, each begins where the one before it
  // ends, rounded up to Places::kAlignment. They must keep their bytes until await_out was called.
  // At least one, and none empty. kOutOfHostMemory beyond the budget; after any failure nothing is
  // in flight and nothing is held.
  Result<Ticket> swap_out(std::span<const SwapSource> sources, StreamId compute);
  // Work queued on `compute` from now on begins when the copy out has ended: the source may be
  // freed or overwritten there.
  Status await_out(Ticket ticket, StreamId compute) { return await_out(std::span(&ticket, 1), compute); }
  // The same for all of these, for the price of one: copies end in the order of their tickets.
  // kInvalidArgument, and nothing is waited for, if one is not live.
  Status await_out(std::span<const Ticket> tickets, StreamId compute);
  // Copies the ticket's [from, from + bytes) to `target`, behind the work queued on `compute` so
  // far. The target must stay allocated until await_in was called, and hold its bytes after it.
  // After a failure the ticket is as it was.
  Status swap_in(Ticket ticket, Offset from, void* target, Bytes bytes, StreamId compute);
  // Work queued on `compute` from now on begins when the ticket's copies in have ended.
  Status await_in(Ticket ticket, StreamId compute);
  // Its host bytes are free. Requires: await_out and await_in were called for every copy, or the
  // memory at its other end outlives it. kInvalidArgument for a ticket that is not live.
  Status release(Ticket ticket);

  // Times are added up as far as copies are done; nothing is waited for.
  SwapStats stats();
  // Waits for the plan being made, if one is: for tests.
  void settle();
  bool is_valid() const;

 private:
  struct Entry {
    Offset offset;
    Bytes bytes;
    std::size_t turn = 0;               // the planner's number for it
    CopyClock::Span out = {}, in = {};  // events; in.start is 0 before the first swap_in
    std::uint64_t out_number = 0;       // of its copy out, see last_out_
  };

  Swap(std::unique_ptr<CopyDevice> device, std::unique_ptr<CopyStreams> streams, const Options& options);

  Result<Offset> find_place(Bytes bytes);
  // The out-stream goes on behind the copies in of released tickets; behind all that are queued, which
  // costs one event that is recorded and waited for at once.
  void wait_for_released();
  Status queue_out(const Entry& entry, std::span<const SwapSource> sources, StreamId compute);
  Status copy_out(Offset to, const SwapSource& source);
  Status queue_in(Entry& entry, Offset from, void* target, Bytes bytes, StreamId compute,
                  bool is_first);
  // An event where `compute` is now; none if there is no such event to be had: then nothing is timed.
  EventId reached(StreamId compute);
  // `compute` waits for this ticket's copy in, and with it for all that come before it on their stream.
  void reach_in(Ticket ticket, StreamId compute);
  Result<CopyClock::Span> take_events();
  void give_back(const CopyClock::Span& span);
  Entry* find(Ticket ticket);

  const std::unique_ptr<CopyDevice> device_;
  const std::unique_ptr<CopyStreams> streams_;

  mutable std::mutex lock_;  // guards everything below
  SwapStats stats_;
  PinnedSlab slab_;
  Places places_;
  TicketPlanner planner_;
  EventPool events_;
  SwapLog log_;
  CopyClock clock_;
  std::unordered_map<std::uint64_t, Entry> tickets_;
  std::deque<Ticket> returning_;  // whose copies in nobody has waited for yet, in their order; of some, more than once
  std::uint64_t last_ticket_ = 0;
  std::uint64_t last_out_ = 0;   // copies out are numbered from 1
  std::uint64_t known_out_ = 0;  // the in-stream stands behind the copies out up to this one
  bool has_released_ = false;    // copies in of tickets that are released: the out-stream is to wait for them
};

}  // namespace ebbtide
