// The best plan within a time limit, with a bound that no plan can beat, and a proof where there is
// one. The one place of this folder that knows a clock and threads.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "allocator/base/result.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solution.h"

namespace ebbtide {

enum class PlanStatus : std::uint8_t {
  kFeasible,    // a plan, within `capacity` if one was given; a lower one may exist
  kOptimal,     // a plan, and no lower one exists
  kInfeasible,  // proved: no plan fits `capacity`; the solution is the lowest plan found all the
                // same
  kUnknown,     // nothing fits `capacity` yet, and nothing proves that it cannot
};

struct PlanProgress {
  Bytes height;       // of the best plan so far
  Bytes lower_bound;  // proved so far
  double seconds = 0;
};

struct AnytimeOptions {
  double time_limit = 10;  // seconds; the first plan is made even if that takes longer
  unsigned threads = 1;    // zero counts as one
  std::uint64_t seed = 1;
  // Repeated layers are not looked for (two_levels.h).
  bool is_single_level = false;
  // Stop as soon as height <= capacity, or prove that it cannot be.
  std::optional<Bytes> capacity;
  // Asked often, from any of the threads, one at a time; true ends the search.
  std::function<bool()> should_stop;
  // Called after every improvement of plan or bound, from any of the threads, one at a time.
  std::function<void(const PlanProgress&)> on_progress;
};

struct AnytimePlan {
  Solution solution;
  Bytes lower_bound;
  PlanStatus status = PlanStatus::kUnknown;
  double seconds = 0;
};

// kInvalidArgument or kInfeasible when check(problem) refuses; kInvalidArgument for buffers of
// several arenas (arenas.h plans those). The same problem, options and
// thread count give the same plan unless the time limit or should_stop cut the search short; with
// more time the plan is never higher.
Result<AnytimePlan> solve_anytime(const Problem& problem, const AnytimeOptions& options = {});

}  // namespace ebbtide
