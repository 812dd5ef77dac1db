// One stream's time.
#pragma once

#include <array>
#include <cstddef>

#include "dryrun/core/timeline.h"

namespace ebbtide::dryrun {

// As many launches are queued before the host has to wait (CUDA's launch queue).
inline constexpr std::size_t kQueueDepth = 1024;

class StreamClock {
 public:
  StreamClock(int number, int on_device, bool is_blocking)
      : index(number), device(on_device), waits_for_default(is_blocking) {}

  const int index;
  const int device;
  const bool waits_for_default;  // CUDA's blocking streams: in order with the default stream
  double now = 0;                // when all that is queued has ended
  Activity last = Activity::kOther;
  Moment awaited;  // nothing begins before
  StreamUse use;

  // When the launch that must be over before one more is queued ends; then this one's end.
  double oldest_end() const { return ends_[next_]; }
  void queue(double end) {
    ends_[next_] = end;
    next_ = (next_ + 1) % kQueueDepth;
  }

 private:
  std::array<double, kQueueDepth> ends_{};
  std::size_t next_ = 0;
};

}  // namespace ebbtide::dryrun
