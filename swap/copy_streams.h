// The stream that copies out and the one that copies in, and their order with compute streams.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "allocator/base/result.h"
#include "allocator/device/copy_device.h"

namespace ebbtide {

// Owns two streams and an event of a device. Thread-safe but for order(), which its owner
// serialises.
class CopyStreams {
 public:
  // `device` must outlive them.
  static Result<std::unique_ptr<CopyStreams>> open(CopyDevice& device);
  // Waits until both are through.
  ~CopyStreams();
  CopyStreams(const CopyStreams&) = delete;
  CopyStreams& operator=(const CopyStreams&) = delete;

  StreamId out() const { return out_; }
  StreamId in() const { return in_; }

  // `copies`, one of the two, goes on behind what is queued on `compute` so far.
  Status order(StreamId copies, StreamId compute);
  // `waiting` goes on behind `event` of `copies`. If that cannot be had, the host waits for all of
  // `copies`: correct before fast.
  Status hold_back(StreamId waiting, EventId event, StreamId copies);
  // Waits on the host until `copies` is through; what fails is logged, too.
  Status drain(StreamId copies);

  // Times that drain was needed.
  std::int64_t host_waits() const { return host_waits_; }

 private:
  explicit CopyStreams(CopyDevice& device) : device_(device) {}

  CopyDevice& device_;
  StreamId out_, in_;  // 0: not made, because opening failed
  EventId ready_;      // recorded and waited for at once, again and again
  std::atomic<std::int64_t> host_waits_{0};
};

}  // namespace ebbtide
