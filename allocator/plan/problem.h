// What the planner is asked: buffers with a size and a live range, and nothing about addresses.
//
//   offset                      A wraps around the iteration boundary, so it has two intervals;
//     |  [  D  ]                D takes the place that B leaves.
//     |  [ B ] [  C  ]
//     |AA|            |AAA|
//     +---------------------> tick
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "allocator/plan/interval.h"

namespace ebbtide {

// While `when` only the bytes [low, high) of a buffer, counted from its offset, are in use.
struct Window {
  Interval when;  // inside one interval of the buffer's life
  Bytes low;      // 0 <= low < high <= the buffer's size
  Bytes high;

  bool operator==(const Window&) const = default;
};

// A request with no address. Sizes are what the buffer occupies: round them before, if need be.
struct Buffer {
  Bytes size;                   // zero: takes no room, conflicts with nothing
  LiveRanges live;              // sorted, disjoint, at least one
  Bytes alignment{512};         // the offset is a multiple of it; any positive number
  std::optional<Offset> fixed;  // the only offset allowed; absent: the solver chooses
  // The memory it lies in (device, host): buffers of different arenas may have the same offsets.
  std::uint32_t arena = 0;
  // In order of time, disjoint. Only solve_anytime() makes use of them: elsewhere the buffer counts
  // as whole, which is safe.
  std::vector<Window> windows = {};
};

struct Problem {
  std::vector<Buffer> buffers;
};

// A stretch of a buffer's life in which the same bytes of it are in use.
struct Segment {
  Interval when;
  Bytes low;
  Bytes high;
};

// The buffer's life cut at its windows, in order of time.
std::vector<Segment> segments_of(const Buffer& buffer);

bool has_windows(const Problem& problem);

// The largest sum of (size + alignment) and fixed ends a problem may have, so that no height that
// a solver can reach overflows, however bad its order is.
inline constexpr Bytes kMaxTotal{std::int64_t{1} << 62};

// Of a problem. A number beyond is a mistake, and would cost memory.
inline constexpr std::uint32_t kMostArenas = 1024;

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
