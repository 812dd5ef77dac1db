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

bool is_settled(PlanStatus status, const std::optional<Bytes>& capacity) {
  return status == PlanStatus::kOptimal || status == PlanStatus::kInfeasible ||
         (capacity && status == PlanStatus::kFeasible);
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
  AnytimePlan plan;
  do {
    auto solved = solve(problem, solving);
    if (!solved.ok()) return solved.error();
    const bool is_first = plan.solution.order.empty();
    if (is_first) plan.lower_bound = max_load(problem);
    if (is_first || solved.value().height < plan.solution.height) {
      plan.solution = std::move(solved).value();
      if (options.on_progress) {
        options.on_progress({plan.solution.height, plan.lower_bound, seconds()});
      }
    }
    plan.status = status_of(plan.solution.height, plan.lower_bound, options.capacity);
    ++solving.seed;
  } while (!is_settled(plan.status, options.capacity) && !solving.should_stop());
  plan.seconds = seconds();
  return plan;
}

}  // namespace ebbtide
