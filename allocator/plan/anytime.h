// Planning with a clock: the best plan found by a time limit, with a bound and whether it is proved.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "allocator/base/result.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solution.h"

namespace ebbtide {

enum class PlanStatus : std::uint8_t { kFeasible, kOptimal, kInfeasible, kUnknown };

struct PlanProgress {
  Bytes height;
  Bytes lower_bound;
  double seconds = 0;
};

struct AnytimeOptions {
  double time_limit = 10;  // seconds
  unsigned threads = 1;
  std::uint64_t seed = 1;
  std::optional<Bytes> capacity;  // stop as soon as height <= capacity; or prove that it cannot be
  std::function<bool()> should_stop;                      // polled; Ctrl-C
  std::function<void(const PlanProgress&)> on_progress;  // called with each better plan
};

struct AnytimePlan {
  Solution solution;
  Bytes lower_bound;
  PlanStatus status = PlanStatus::kUnknown;
  double seconds = 0;
};

// The lowest plan found. kInvalidArgument or kInfeasible when check(problem) refuses.
Result<AnytimePlan> solve_anytime(const Problem& problem, const AnytimeOptions& options = {});

}  // namespace ebbtide
