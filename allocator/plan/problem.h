// What the planner is asked: buffers with a size and a live range, and nothing about addresses.
//
//   offset                      A wraps around the iteration boundary, so it has two intervals;
//     |  [  D  ]                D takes the place that B leaves.
//     |  [ B ] [  C  ]
//     |AA|            |AAA|
//     +---------------------> tick
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "allocator/plan/interval.h"

namespace ebbtide {

// A request with no address. Sizes are what the buffer occupies: round them before, if need be.
struct Buffer {
  Bytes size;                   // zero: takes no room, conflicts with nothing
  LiveRanges live;              // sorted, disjoint, at least one
  Bytes alignment{512};         // the offset is a multiple of it; any positive number
  std::optional<Offset> fixed;  // the only offset allowed; absent: the solver chooses
};

struct Problem {
  std::vector<Buffer> buffers;
};

// The largest sum of (size + alignment) and fixed ends a problem may have, so that no height that
// a solver can reach overflows, however bad its order is.
inline constexpr Bytes kMaxTotal{std::int64_t{1} << 62};

// A buffer of a cyclic iteration of `period` ticks. death > period, or death <= birth, means that
// it dies in the next iteration: its lifetime is cut into [0, death - period) and [birth, period).
// One that lives for a whole period or more is live throughout.
// Requires: 0 <= birth < period, 0 <= death.
Buffer wrapping(Bytes size, Tick birth, Tick death, Tick period);

// Says the first rule of Buffer that is broken, or two fixed buffers that overlap
// (kInvalidArgument and kInfeasible). A message calls buffer i names[i], or "buffer i" where there
// are no names. O(n log n).
Status check(const Problem& problem, std::span<const std::string> names = {});

// What check() and validate() call buffer `index`. Requires: no names, or one for each buffer.
std::string name_of(std::size_t index, std::span<const std::string> names);

}  // namespace ebbtide
