// What the planner answers: one offset for each buffer of a Problem, in the Problem's order.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/base/units.h"

namespace ebbtide {

struct Solution {
  std::vector<Offset> offsets;       // offsets[i] belongs to buffers[i]
  Bytes height;                      // no buffer ends above it: the arena's size
  std::vector<std::uint32_t> order;  // place(problem, order) gives this solution again

  bool operator==(const Solution&) const = default;
};

}  // namespace ebbtide
