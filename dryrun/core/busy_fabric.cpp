#include "dryrun/core/busy_fabric.h"

#include <algorithm>

namespace ebbtide::dryrun {

namespace {

// A program's collectives are queued a few ahead of what is computed beside them.
constexpr std::size_t kMostTaken = 64;

}  // namespace

void BusyFabric::take(double begin, double end, double share) {
  if (share <= 0 || end <= begin) return;
  taken_.push_back({begin, end, share});
  if (taken_.size() > kMostTaken) taken_.pop_front();
}

double BusyFabric::end_of(double begin, double seconds) const {
  double now = begin, left = seconds;
  for (const Taken& taken : taken_) {
    if (taken.end <= now) continue;
    const double alone = std::max(0.0, taken.begin - now);
    if (alone >= left) break;
    now += alone;
    left -= alone;
    const double done = (taken.end - now) * (1 - taken.share);
    if (done >= left) return now + left / (1 - taken.share);
    left -= done;
    now = taken.end;
  }
  return now + left;
}

}  // namespace ebbtide::dryrun
