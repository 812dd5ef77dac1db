// The link between devices and the host: one copy at a time in each direction, both at once at a
// lower rate. Not thread-safe: its owner locks.
#pragma once

#include <array>
#include <deque>

#include "dryrun/core/device_model.h"

namespace ebbtide::dryrun {

enum class Direction { kOut, kIn };  // to the host, to the device

struct Interval {
  double begin = 0, end = 0;  // seconds of virtual time
};

class Link {
 public:
  // `sharers`: devices of other processes that use it just as much, at the same time.
  Link(const DeviceSpeed& speed, int sharers);

  // When a copy of `bytes` is carried that could begin at `ready`. A copy that comes first keeps
  // its rate; one that overlaps it in the other direction gets what both at once leave over.
  Interval carry(Direction direction, double bytes, double ready, bool is_pinned);

 private:
  double finish(double begin, double bytes, double rate, const std::deque<Interval>& other) const;

  struct Lane {
    double rate = 0;               // bytes in one second while the other direction is idle
    double pageable_rate = 0;      // of memory that is not pinned
    std::deque<Interval> carried;  // the latest, in order, none overlapping
  };
  std::array<Lane, 2> lanes_;
  double both_ = 0;  // bytes in one second of both directions together
  double start_ = 0;
};

}  // namespace ebbtide::dryrun
