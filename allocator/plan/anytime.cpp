#include "allocator/plan/anytime.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "allocator/plan/compact.h"
#include "allocator/plan/lower_bound.h"
#include "allocator/plan/solver.h"

namespace ebbtide {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

PlanStatus status_of(Bytes height, Bytes bound, std::optional<Bytes> capacity) {
  if (height <= bound) return capacity && height > *capacity ? PlanStatus::kInfeasible : PlanStatus::kOptimal;
  if (!capacity || height <= *capacity) return PlanStatus::kFeasible;
  return bound > *capacity ? PlanStatus::kInfeasible : PlanStatus::kUnknown;
}

}  // namespace

Result<AnytimePlan> solve_anytime(const Problem& problem, const AnytimeOptions& options) {
  const double begin = seconds_now();
  SolveOptions solve_options;
  solve_options.seed = options.seed;
  solve_options.improvement_steps = std::numeric_limits<std::int64_t>::max();
  solve_options.should_stop = [&] {
    return seconds_now() - begin > options.time_limit || (options.should_stop && options.should_stop());
  };
  auto solved = solve(problem, solve_options);
  if (!solved.ok()) return solved.error();
  AnytimePlan plan;
  plan.solution = std::move(solved).value();
  plan.lower_bound = std::max(max_load(problem), Bytes{compact(problem).fixed_top});
  plan.status = status_of(plan.solution.height, plan.lower_bound, options.capacity);
  plan.seconds = seconds_now() - begin;
  if (options.on_progress) options.on_progress({plan.solution.height, plan.lower_bound, plan.seconds});
  return plan;
}

}  // namespace ebbtide
