// How long copies took, and how much of that the compute stream had to wait for.
#pragma once

#include <cstdint>
#include <deque>

#include "allocator/base/units.h"
#include "allocator/device/copy_device.h"
#include "swap/event_pool.h"
#include "swap/swap_log.h"

namespace ebbtide {

// One direction's sums, in nanoseconds of the device's clock.
struct CopyTime {
  std::int64_t copying_ns = 0;  // copies under way
  std::int64_t timed_bytes = 0;  // copied in that time: those under way still are not in it
  std::int64_t exposed_ns = 0;  // of that, the compute stream stood still: not hidden
  std::int64_t unmeasured = 0;  // copies that were not timed: too many at once
};

// Reads events when they are done and never waits for them. Serialised by its owner.
//
//   copy stream      |start ======= end|
//   compute stream   ... work |reached .. |      exposed = end - reached, if positive, and at most the copy
//
// Copies of a stream end in order: who waits for one has waited for those before it, and reached all of them there.
//
// For a log, where copies begin on the host's clock follows from an anchor: an event on an idle stream, and the host's
// time when it was recorded. It is moved up to the present now and then, since drivers tell long times less exactly.
class CopyClock {
 public:
  // More copies than this at once are not timed, so that a long queue costs no memory.
  static constexpr std::size_t kMostPending = 4096;
  // Whether copies are done is looked up at each so many of them: where they are not, that costs as many
  // calls of the driver as to time one.
  static constexpr std::uint64_t kLookEvery = 16;

  CopyClock(CopyDevice& device, EventPool& events) : device_(device), events_(events) {}
  // Tells `log` of every copy from now on. Requires: nothing is queued on `idle`.
  void tell(const SwapLog& log, StreamId idle);
  ~CopyClock();
  CopyClock(const CopyClock&) = delete;
  CopyClock& operator=(const CopyClock&) = delete;

  struct Span {
    EventId start, end;  // around the copy, on its stream
    EventId reached;     // on the compute stream, before it waited for `end`; 0: it never did
    Bytes bytes = {};
  };
  // Takes over the events; they go back to the pool.
  void add(const Span& span, CopyTime& sum, SwapLog::Copy copy = {});
  // Adds up what is done by now. The sums given to add() must still exist.
  void collect();

 private:
  struct Pending {
    Span span;
    CopyTime* sum;
    SwapLog::Copy copy;
  };
  // The event whose time on the steady clock is known. No event: nobody is told.
  struct Anchor {
    EventId event;
    std::int64_t time_ns = 0;
  };
  bool collect_one(Pending& pending);
  void log_copy(Pending& pending, std::int64_t length, std::int64_t exposed);
  void give_back(const Span& span);

  CopyDevice& device_;
  EventPool& events_;
  const SwapLog* log_ = nullptr;
  Anchor anchor_;
  std::uint64_t added_ = 0;
  std::deque<Pending> pending_;  // in the order in which they were added
};

}  // namespace ebbtide
