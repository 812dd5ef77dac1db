#include "allocator/plan/anytime.h"

#include <chrono>

#include "allocator/plan/lower_bound.h"
#include "allocator/plan/solver.h"

namespace ebbtide {
namespace {

PlanStatus status_of(Bytes height, Bytes bound, const std::optional<Bytes>& capacity) {
  if (capacity && bound > *capacity) return PlanStatus::kInfeasible;
  if (height == bound) return PlanStatus::kOptimal;
  return capacity && height > *capacity ? PlanStatus::kUnknown : PlanStatus::kFeasible;
}

}  // namespace

Result<AnytimePlan> solve_anytime(const Problem& problem, const AnytimeOptions& options) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  SolveOptions solving;
  solving.seed = options.seed;
  solving.should_stop = [&] {
    return seconds() >= options.time_limit || (options.should_stop && options.should_stop());
  };
  auto solved = solve(problem, solving);
  if (!solved.ok()) return solved.error();
  AnytimePlan plan;
  plan.solution = std::move(solved).value();
  plan.lower_bound = max_load(problem);
  plan.status = status_of(plan.solution.height, plan.lower_bound, options.capacity);
  plan.seconds = seconds();
  if (options.on_progress) {
    options.on_progress({plan.solution.height, plan.lower_bound, plan.seconds});
  }
  return plan;
}

}  // namespace ebbtide
