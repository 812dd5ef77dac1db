// Which request of a finished round is which node of a program.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/runtime/program.h"
#include "allocator/runtime/round.h"

namespace ebbtide {

struct Alignment {
  std::vector<std::int64_t> node;  // per request; -1 where the program does not expect it
  double share = 0;                // of bytes, requested or expected, that the two have in common
};

// Follows the round as it would have been served (see Matcher).
Alignment align(const Program& program, const Round& round);

// True when what the two keep beyond the round differs by more than a third of its bytes: a step's first
// micro-batch keeps the gradients that its others make only to add them.
bool leaves_other_residents(const Program& program, const Round& round);

}  // namespace ebbtide
