#include "allocator/plan/anytime.h"

#include <algorithm>
#include <utility>

#include "allocator/plan/portfolio.h"

namespace ebbtide {
namespace {

PlanStatus status_of(Bytes height, Bytes bound, const std::optional<Bytes>& capacity) {
  if (capacity && bound > *capacity) return PlanStatus::kInfeasible;
  if (capacity && height > *capacity) return PlanStatus::kUnknown;
  return height <= bound ? PlanStatus::kOptimal : PlanStatus::kFeasible;
}

}  // namespace

Result<AnytimePlan> solve_anytime(const Problem& problem, const AnytimeOptions& options) {
  const Status checked = check(problem);
  if (!checked.ok()) return checked.error();
  if (options.capacity && options.capacity->value < 0) {
    return Error{ErrorCode::kInvalidArgument, "the capacity is negative"};
  }
  Portfolio portfolio(problem, options);
  AnytimePlan plan;
  plan.solution = portfolio.run();
  plan.lower_bound = portfolio.lower_bound();
  plan.status = status_of(plan.solution.height, plan.lower_bound, options.capacity);
  plan.seconds = portfolio.seconds();
  return plan;
}

}  // namespace ebbtide
