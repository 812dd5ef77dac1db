// The judge of every plan, written apart from every solver: it shares no code with them.
#pragma once

#include <span>
#include <string>

#include "allocator/base/result.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solution.h"

namespace ebbtide {

// Says the first broken rule (kBadPlan), naming both buffers, or Nothing when the plan is safe:
//   1. one offset for each buffer, each >= 0 and a multiple of the buffer's alignment;
//   2. a fixed buffer is at its offset;
//   3. offset + size <= height;
//   4. two buffers of one arena share no byte that both have in use at the same tick.
// `order` is not judged: it makes no plan unsafe. O(n log n), cheap enough to be always on.
// Requires: check(problem). Any solution is accepted as input, however broken. `names` as in
// check().
Status validate(const Problem& problem, const Solution& solution,
                std::span<const std::string> names = {});

}  // namespace ebbtide
