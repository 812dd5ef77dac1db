#include "allocator/plan/lower_bound.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace ebbtide {

PeakLoad peak_load(const Problem& problem) {
  std::vector<std::pair<Tick, Bytes>> changes;
  changes.reserve(problem.buffers.size() * 2);
  for (const Buffer& buffer : problem.buffers) {
    for (const Interval& interval : buffer.live) {
      changes.push_back({interval.birth, buffer.size});
      changes.push_back({interval.death, Bytes{0} - buffer.size});
    }
  }
  // Within a tick the negative changes come first: a death frees before a birth takes.
  std::sort(changes.begin(), changes.end());
  PeakLoad peak{};
  Bytes load{0};
  for (const auto& [tick, change] : changes) {
    load += change;
    if (load > peak.load) peak = {load, tick};
  }
  return peak;
}

Bytes max_load(const Problem& problem) { return peak_load(problem).load; }

}  // namespace ebbtide
