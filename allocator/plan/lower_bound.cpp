#include "allocator/plan/lower_bound.h"

#include <algorithm>
#include <compare>
#include <utility>
#include <vector>

namespace ebbtide {

PeakLoad peak_load(const Problem& problem) {
  struct Change {
    std::uint32_t arena;
    Tick tick;
    Bytes bytes;
    auto operator<=>(const Change&) const = default;
  };
  std::vector<Change> changes;
  changes.reserve(problem.buffers.size() * 2);
  const auto add = [&](std::uint32_t arena, const Interval& when, Bytes bytes) {
    changes.push_back({arena, when.birth, bytes});
    changes.push_back({arena, when.death, Bytes{0} - bytes});
  };
  for (const Buffer& buffer : problem.buffers) {
    if (buffer.windows.empty()) {
      for (const Interval& interval : buffer.live) add(buffer.arena, interval, buffer.size);
      continue;
    }
    for (const Segment& segment : segments_of(buffer)) {
      add(buffer.arena, segment.when, segment.high - segment.low);
    }
  }
  // Within a tick the negative changes come first: a death frees before a birth takes.
  std::sort(changes.begin(), changes.end());
  PeakLoad peak{};
  Bytes load{0};
  for (const auto& [arena, tick, change] : changes) {  // an arena's changes sum up to nothing
    load += change;
    if (load > peak.load) peak = {load, tick};
  }
  return peak;
}

Bytes max_load(const Problem& problem) { return peak_load(problem).load; }

}  // namespace ebbtide
