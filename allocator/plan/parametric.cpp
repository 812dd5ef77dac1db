#include "allocator/plan/parametric.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

namespace ebbtide {
namespace {

Error invalid(std::string reason) { return {ErrorCode::kInvalidArgument, std::move(reason)}; }

// Far more than any device has, and small enough that sums of many do not overflow.
constexpr double kLargest = 0x1p61;

}  // namespace

Result<ParametricSizes> ParametricSizes::fit(std::vector<ObservedLength> observed, Bytes granule) {
  if (granule.value <= 0) return invalid("the granule must be positive");
  if (observed.size() < 2) return invalid("sizes need to be seen at two lengths at least");
  std::sort(observed.begin(), observed.end(),
            [](const ObservedLength& a, const ObservedLength& b) { return a.length < b.length; });
  for (std::size_t i = 0; i < observed.size(); ++i) {
    const std::string name = "length " + std::to_string(observed[i].length);
    if (observed[i].length <= 0) return invalid(name + " is not positive");
    if (i > 0 && observed[i].length == observed[i - 1].length)
      return invalid(name + " appears twice");
    if (observed[i].sizes.size() != observed.front().sizes.size()) {
      return invalid(name + " has " + std::to_string(observed[i].sizes.size()) +
                     " buffers, the first has " + std::to_string(observed.front().sizes.size()));
    }
    for (const Bytes size : observed[i].sizes) {
      if (size.value < 0) return invalid(name + " has a negative size");
    }
  }
  return ParametricSizes(std::move(observed), granule);
}

Bytes ParametricSizes::size_at(std::size_t buffer, std::int64_t length) const {
  // The first observed length that is not below, but neither the first nor past the last of all.
  auto right = std::lower_bound(
      observed_.begin(), observed_.end(), length,
      [](const ObservedLength& seen, std::int64_t wanted) { return seen.length < wanted; });
  if (right != observed_.end() && right->length == length) return right->sizes[buffer];
  right = std::clamp(right, observed_.begin() + 1, observed_.end() - 1);
  const ObservedLength& a = *(right - 1);
  const ObservedLength& b = *right;
  const auto rise = static_cast<double>(b.sizes[buffer].value - a.sizes[buffer].value);
  if (rise == 0) return a.sizes[buffer];
  const double slope = rise / static_cast<double>(b.length - a.length);
  const double exact =
      static_cast<double>(a.sizes[buffer].value) + slope * static_cast<double>(length - a.length);
  const auto whole = static_cast<std::int64_t>(std::ceil(std::clamp(exact, 0.0, kLargest)));
  return align_up(Bytes{whole}, granule_);
}

// The size is a line between observed lengths, so its largest value is at one of them or at an end.
Bytes ParametricSizes::size_up_to(std::size_t buffer, std::int64_t length) const {
  Bytes largest = std::max(size_at(buffer, 1), size_at(buffer, length));
  for (const ObservedLength& seen : observed_) {
    if (seen.length <= length) largest = std::max(largest, seen.sizes[buffer]);
    // Observed sizes need not be multiples of the granule: beside one, the line is rounded up.
    for (const std::int64_t beside : {seen.length - 1, seen.length + 1}) {
      if (beside >= 1 && beside <= length) largest = std::max(largest, size_at(buffer, beside));
    }
  }
  return largest;
}

Result<Problem> problem_up_to(const Problem& problem, const ParametricSizes& sizes,
                              std::int64_t length) {
  if (sizes.count() != problem.buffers.size()) {
    return invalid("there are sizes of " + std::to_string(sizes.count()) +
                   " buffers, the problem has " + std::to_string(problem.buffers.size()));
  }
  if (length < 1) return invalid("length " + std::to_string(length) + " is not positive");
  Problem result = problem;
  for (std::size_t i = 0; i < result.buffers.size(); ++i) {
    result.buffers[i].size = sizes.size_up_to(i, length);
  }
  const Status checked = check(result);
  if (!checked.ok()) return checked.error();
  return result;
}

Result<LongestLength> longest_length(const Problem& problem, const ParametricSizes& sizes,
                                     Bytes capacity, std::int64_t longest,
                                     const AnytimeOptions& options) {
  if (longest < 1) return invalid("length " + std::to_string(longest) + " is not positive");
  AnytimeOptions within = options;
  within.capacity = capacity;
  std::optional<LongestLength> best;
  bool is_proved = true;  // what did not fit cannot
  // What was tried last and did not fit; its status says whether that is a fact. Too large a
  // problem for check() does not fit either.
  const auto fits = [&](std::int64_t length) -> Result<bool> {
    const auto at = problem_up_to(problem, sizes, length);
    if (!at.ok()) {
      if (sizes.count() != problem.buffers.size() || length == 1) return at.error();
      is_proved = true;
      return false;
    }
    auto plan = solve_anytime(at.value(), within);
    if (!plan.ok()) return plan.error();
    if (plan.value().solution.height <= capacity) {
      best = LongestLength{length, std::move(plan).value(), false};
      return true;
    }
    is_proved = plan.value().status == PlanStatus::kInfeasible;
    return false;
  };
  const auto first = fits(1);
  if (!first.ok()) return first.error();
  if (!first.value()) {
    return Error{ErrorCode::kInfeasible, "no plan for length 1 fits " + to_string(capacity) +
                                             (is_proved ? "" : " (found in the time given)")};
  }
  std::int64_t low = 1;
  std::int64_t high = longest + 1;  // does not fit, or is out of question
  is_proved = true;
  while (high - low > 1) {
    // The longest first: often it fits, and nothing else need be tried.
    const std::int64_t middle = high == longest + 1 && low == 1 ? longest : low + (high - low) / 2;
    const auto fitting = fits(middle);
    if (!fitting.ok()) return fitting.error();
    (fitting.value() ? low : high) = middle;
  }
  best->is_proved = low == longest || is_proved;
  return std::move(*best);
}

}  // namespace ebbtide
