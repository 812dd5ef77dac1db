// From a Problem to a Solution. Pure: no clock, no threads, no state between calls.
//
// Two ways in: solve() looks for the lowest arena in the background; place() follows a known order
// once, fast enough for the training thread.
//
// Beyond the first design: `improvement_steps` counts work, not rounds, so that one value suits
// problems of any number of buffers.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/plan/instance.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solution.h"

namespace ebbtide {

struct SolveOptions {
  // Asked before every pass over the buffers but the first; absent: never stops early.
  std::function<bool()> should_stop;
  std::uint64_t seed = 1;
  double good_enough = 1.0;  // stop when height <= good_enough * max_load
  // Orders to try first, e.g. the last plan's. Each must hold every buffer once.
  std::vector<std::vector<std::uint32_t>> warm_orders;
  // Buffers placed before all others, in this order, so that their offsets depend on each other
  // (and on fixed buffers) only, never on the rest: residents that keep their addresses when the
  // other sizes change.
  std::vector<std::uint32_t> first;
  // The work of improvement: one pass over n buffers costs n * (1 + n / 1000) steps. The default
  // takes about 50 ms. Zero: the greedy orders only.
  std::int64_t improvement_steps = 500'000;
  // Repeated layers are not looked for (two_levels.h).
  bool is_single_level = false;
};

// The lowest plan found: greedy orders, then improvement, ending at the lower bound. The same for
// the same input and seed as long as should_stop does not fire. Arenas and windows are not made use
// of: buffers are whole and, unless they are fixed, share no address with any that lives beside
// them. kInvalidArgument or kInfeasible when check(problem) refuses, kInvalidArgument for an order
// that is not one.
Result<Solution> solve(const Problem& problem, const SolveOptions& options = {});

// The same for an instance that exists. Requires: no fixed buffers overlap; `first` and the warm
// orders hold indices of buffers as SolveOptions says.
Solution solve(const Instance& instance, const SolveOptions& options);

// One first-fit pass over the order; fixed buffers are placed before it. Requires: check(problem),
// order holds every buffer once. About 0.2 us for each buffer and 0.1 us for each 100 live at once.
Solution place(const Problem& problem, std::span<const std::uint32_t> order);
Solution place(const CompactProblem& problem, std::span<const std::uint32_t> order);

}  // namespace ebbtide
