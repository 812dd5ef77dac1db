#include "allocator/plan/anytime.h"

#include <algorithm>
#include <utility>

#include "allocator/plan/portfolio.h"
#include "allocator/plan/windowed.h"

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
  const bool has_arenas = std::any_of(problem.buffers.begin(), problem.buffers.end(),
                                      [](const Buffer& buffer) { return buffer.arena != 0; });
  if (has_arenas) {
    return Error{ErrorCode::kInvalidArgument,
                 "the buffers are of several arenas: plan them with solve_arenas()"};
  }
  const auto finish = [&](auto& search) {
    AnytimePlan plan;
    plan.solution = search.run();
    plan.lower_bound = search.lower_bound();
    plan.status = status_of(plan.solution.height, plan.lower_bound, options.capacity);
    plan.seconds = search.seconds();
    return plan;
  };
  if (has_windows(problem)) {
    WindowedSearch search(problem, options);
    return finish(search);
  }
  Portfolio portfolio(problem, options);
  return finish(portfolio);
}

}  // namespace ebbtide
