// Order between streams without the host: an event recorded on one stream, waited for on another.
#pragma once

#include <cstdint>

namespace ebbtide {

// A device stream's handle as a number; 0 is the default stream (and the only one in host memory).
struct StreamId {
  std::uint64_t value = 0;
  constexpr bool operator==(const StreamId&) const = default;
};

struct EventId {
  std::uint64_t value = 0;  // 0: no event was needed, or none could be recorded
};

// Thread-safe. Never waits on the host, except where said.
class StreamFences {
 public:
  virtual ~StreamFences() = default;

  // Records an event behind the work queued on `stream` so far.
  virtual EventId record(StreamId stream) = 0;
  // Work queued on `stream` from now on waits for the event. Destroys the event.
  virtual void wait_and_destroy(StreamId stream, EventId event) = 0;
};

// Host memory has no streams: nothing to record, nothing to wait for.
class NoFences final : public StreamFences {
 public:
  EventId record(StreamId) override { return {}; }
  void wait_and_destroy(StreamId, EventId) override {}
};

}  // namespace ebbtide
