#include "dryrun/core/link.h"

#include <algorithm>

namespace ebbtide::dryrun {

namespace {

constexpr std::size_t kRemembered = 1024;
// The second direction never stops altogether.
constexpr double kLeastShare = 0.05;

}  // namespace

Link::Link(const DeviceSpeed& speed, int sharers) : start_(speed.copy_seconds) {
  const std::array<double, 2> peaks{speed.to_host, speed.to_device};
  for (std::size_t i = 0; i < peaks.size(); ++i) {
    lanes_[i].rate = peaks[i] * speed.host_link / sharers;
    lanes_[i].pageable_rate = std::min(peaks[i] * speed.host_link_pageable, lanes_[i].rate);
  }
  both_ = (speed.to_host + speed.to_device) * speed.host_link_both / sharers;
}

double Link::finish(double begin, double bytes, double rate,
                    const std::deque<Interval>& other) const {
  const double beside = std::clamp(both_ - rate, kLeastShare * rate, rate);
  double now = begin;
  const auto first = std::partition_point(other.begin(), other.end(), [&](const Interval& busy) {
    return busy.end <= begin;
  });
  for (auto at = first; at != other.end(); ++at) {
    const Interval& busy = *at;
    const double alone = std::max(0.0, busy.begin - now);
    if (alone * rate >= bytes) break;
    bytes -= alone * rate;
    now += alone;
    const double together = busy.end - now;
    if (together * beside >= bytes) return now + bytes / beside;
    bytes -= together * beside;
    now = busy.end;
  }
  return now + bytes / rate;
}

Interval Link::carry(Direction direction, double bytes, double ready, bool is_pinned) {
  Lane& lane = lanes_[static_cast<std::size_t>(direction)];
  const Lane& other = lanes_[1 - static_cast<std::size_t>(direction)];
  const double begin = std::max(ready, lane.carried.empty() ? 0.0 : lane.carried.back().end);
  const double rate = is_pinned ? lane.rate : lane.pageable_rate;
  const Interval carried{begin, finish(begin + start_, bytes, rate, other.carried)};
  lane.carried.push_back(carried);
  if (lane.carried.size() > kRemembered) lane.carried.pop_front();
  return carried;
}

}  // namespace ebbtide::dryrun
