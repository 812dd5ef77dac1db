// Note [Two levels]: a layer's own buffers are planned once for all passes through it, as a problem
// of their own; then each pass is one buffer, as high as that plan, in a problem of whole layers
// and of what lives longer. The second problem is smaller by far, and may have layers itself (the
// micro-batches of an iteration), which are planned in the same way. What is lost is that a layer's
// plan is a rectangle: so another plan may be lower, and this one is only a candidate.
// After MEMO (arXiv 2407.12117, section 4.2), which is told where layers begin and solves both
// levels by mixed integer programs.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "allocator/plan/instance.h"

namespace ebbtide {

// Plans the problem of whole layers: offsets for its buffers.
using TopSolver = std::function<std::vector<std::int64_t>(const Instance&)>;

// Valid offsets for all buffers; nothing when there are no layers, or too few buffers in them to
// matter. Pure, if the solver is.
std::optional<std::vector<std::int64_t>> plan_by_levels(const Instance& instance,
                                                        const TopSolver& solve_top);

}  // namespace ebbtide
