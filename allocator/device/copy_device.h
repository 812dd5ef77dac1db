// What moving bytes between a device and the host needs: streams, events, copies, pinned pages.
#pragma once

#include <cstdint>
#include <optional>

#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "allocator/device/stream_fences.h"

namespace ebbtide {

// Streams run their work in the order in which it was queued; different streams are ordered by
// events alone. A stream that the device did not create is a compute stream of the caller's.
//
// Thread-safe. No call waits on the host except where said. An implementation with host compute
// (HostCopyDevice) has no compute stream to hold back: there, a wait on it holds the caller back.
class CopyDevice {
 public:
  virtual ~CopyDevice() = default;

  virtual Result<StreamId> create_stream() = 0;
  // Waits until the stream's work is through.
  virtual void destroy_stream(StreamId stream) = 0;

  virtual Result<EventId> create_event() = 0;
  virtual void destroy_event(EventId event) = 0;

  // The event now stands behind the work queued on `stream` so far. Waits queued on it earlier keep
  // the place that they were given.
  virtual Status record(EventId event, StreamId stream) = 0;
  // Work queued on `stream` from now on begins after the place where `event` was last recorded. An
  // event that was never recorded holds nothing back.
  virtual Status wait(StreamId stream, EventId event) = 0;
  // Has the work before the event's last record ended? Never waits.
  virtual bool is_done(EventId event) = 0;
  // From one event to the other on the device's clock; absent until both are done.
  virtual std::optional<std::int64_t> elapsed_ns(EventId from, EventId to) = 0;

  // Queues a copy. One end is host memory, pinned where the device pins; `bytes` > 0.
  virtual Status copy(void* target, const void* source, Bytes bytes, StreamId stream) = 0;
  // Waits on the host until the work queued on `stream` is through: for errors and for shutdown.
  virtual Status synchronize(StreamId stream) = 0;

  // Makes [place, place + bytes), whole pages, memory that copies can reach without staging.
  // kOutOfHostMemory when the system does not grant it; then nothing has changed.
  virtual Status pin(void* place, Bytes bytes) = 0;
  // Takes back one earlier pin of exactly this place.
  virtual void unpin(void* place) = 0;
  // The memory node that the device's link hangs on; absent when the system does not tell.
  virtual std::optional<int> numa_node() const = 0;
};

}  // namespace ebbtide
