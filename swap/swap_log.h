// What a swap does, told to a trace.
#pragma once

#include <cstdint>

#include "allocator/base/event.h"
#include "allocator/base/units.h"

namespace ebbtide {

// Records go to a sink, none where there is no trace. Serialised by its owner.
class SwapLog {
 public:
  // A copy that is timed: whose it is.
  struct Copy {
    std::uint64_t ticket = 0;
    bool is_in = false;
  };

  SwapLog(EventSink* sink, int device) : sink_(sink), device_(static_cast<std::int8_t>(device)) {}

  bool is_on() const { return sink_ != nullptr; }
  // Queued now; not done yet.
  void out(std::uint64_t ticket, Bytes bytes, Offset place) const { tell(Action::kSwapOut, ticket, bytes.value, place.value); }
  void in(std::uint64_t ticket, Bytes bytes) const { tell(Action::kSwapIn, ticket, bytes.value, 0); }
  void released(std::uint64_t ticket, Bytes bytes) const { tell(Action::kSwapRelease, ticket, bytes.value, 0); }
  // `begin_ns` on the steady clock.
  void copied(const Copy& copy, std::int64_t begin_ns, std::int64_t length_ns, std::int64_t exposed_ns) const;
  // Tells only what changed.
  void pinned(Bytes bytes);

 private:
  void tell(Action action, std::uint64_t ticket, std::int64_t bytes, std::int64_t stream) const;

  EventSink* const sink_;
  const std::int8_t device_;
  Bytes pinned_;  // as told last
};

}  // namespace ebbtide
