// Residents that upstream still holds from before there was a plan, and the nodes that take over from them.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/plan/problem.h"
#include "allocator/runtime/matcher.h"
#include "allocator/runtime/program.h"

namespace ebbtide {

// With a late zero_grad, gradients of the observed round stand upstream while the first planned one begins. They go before
// the round makes new ones, and from then on these are the arena's: its residents.
struct Successors {
  std::vector<std::uint32_t> nodes;  // in the order in which they are made
  Bytes size;                        // of all
  Tick begin = kAlive;               // when what they follow will have gone: the backward pass begins, or the first is made
};

// None unless an optimizer's step went before: gradients that are added to do not go.
Successors successors_of(const Program& program, const Matcher& matcher, const Round& round);

// The problem with the successors at the top of what the round needs, where nothing else is before they may begin:
//
//   +----------+--------------+
//   | kept     |  successors  |    An arena that grows as it is used stays below `kept`, and never stands beside all that
//   | empty    +---------+    |    upstream holds. Later rounds find their residents side by side, not here and there.
//   |  +-------|         +----|
//   +--+  all else            |
//   ticks ->  begin
//
// `spare`: so much higher than the load asks for. Requires: there are successors; node i is buffer i, and lives in one
// range; sizes and spare are multiples of all alignments.
Problem with_successors_on_top(Problem problem, const Successors& successors, Bytes spare);

// The first byte of the successors' places. Requires: as above.
Offset bottom_of(const Successors& successors, const Problem& on_top);

}  // namespace ebbtide
