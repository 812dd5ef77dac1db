// The bound that no plan can beat.
#pragma once

#include <optional>

#include "allocator/plan/problem.h"

namespace ebbtide {

// The largest sum of bytes in use at any tick, of the arena where it is largest. Requires:
// check(problem). O(n log n), exact.
Bytes max_load(const Problem& problem);

// max_load, and where it is first reached; no tick when nothing is ever live.
struct PeakLoad {
  Bytes load;
  std::optional<Tick> tick;
};
PeakLoad peak_load(const Problem& problem);

}  // namespace ebbtide
