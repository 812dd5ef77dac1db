// A Problem made ready for the solvers, once for all of them.
#pragma once

#include <cstdint>

#include "allocator/plan/compact.h"
#include "allocator/plan/sections.h"

namespace ebbtide {

// Immutable. O(n log n) to build.
struct Instance {
  // Requires: check(problem).
  explicit Instance(const Problem& problem);
  explicit Instance(CompactProblem compacted);

  CompactProblem buffers;
  Sections sections;
  std::int64_t bound;  // no plan is lower: the largest load, or the end of a fixed buffer
};

}  // namespace ebbtide
