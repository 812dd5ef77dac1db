#include "allocator/plan/solver.h"

#include <algorithm>
#include <string>
#include <utility>

#include "allocator/base/check.h"
#include "allocator/plan/compact.h"
#include "allocator/plan/improve.h"
#include "allocator/plan/orders.h"
#include "allocator/plan/parts_fill.h"
#include "allocator/plan/pass.h"
#include "allocator/plan/two_levels.h"

namespace ebbtide {
namespace {

// Below this size all strategies take less than a millisecond.
constexpr std::uint32_t kFewBuffers = 500;
// Past this size a greedy order that is clearly worse than the best is given up half-way, and the
// slower best-fit variants are not tried.
constexpr std::uint32_t kManyBuffers = 3000;
constexpr std::int64_t kClearlyWorse = 50;  // by more than 1 / 50 of the height
// Past this size a pass of first fit, which compares neighbours, takes seconds: valleys are filled
// only, which does not.
constexpr std::uint32_t kTooManyForPasses = 150'000;
constexpr int kTurns = 8;
constexpr std::size_t kFewHigh = 8;     // buffers above the target: promoted at once
constexpr int kEarlyPromotions = 2;     // rounds
constexpr int kPromotions = 12;         // rounds, of the best candidates
constexpr double kPromoteShare = 0.25;  // of the effort
constexpr double kSqueezeShare = 0.5;   // of the effort; the rest belongs to the search

// Whether the indices are below n, each at most once.
bool are_distinct(std::span<const std::uint32_t> indices, std::size_t n) {
  std::vector<bool> seen(n, false);
  for (const std::uint32_t i : indices) {
    if (i >= n || seen[i]) return false;
    seen[i] = true;
  }
  return true;
}

Status check_options(const SolveOptions& options, std::size_t n) {
  if (!are_distinct(options.first, n)) {
    return Error{ErrorCode::kInvalidArgument, "`first` names a buffer twice or one that is not"};
  }
  for (std::size_t i = 0; i < options.warm_orders.size(); ++i) {
    const auto& order = options.warm_orders[i];
    if (order.size() == n && are_distinct(order, n)) continue;
    return Error{ErrorCode::kInvalidArgument,
                 "warm order " + std::to_string(i) + " does not hold every buffer once"};
  }
  return Nothing{};
}

// The height at which the search is over.
std::int64_t target_height(std::int64_t bound, double good_enough) {
  if (!(good_enough > 1.0)) return bound;
  const double slack = (good_enough - 1.0) * static_cast<double>(bound);
  return bound + static_cast<std::int64_t>(std::min(slack, static_cast<double>(bound)));
}

Solution to_solution(const std::vector<std::int64_t>& offsets, std::int64_t height,
                     std::vector<std::uint32_t> order) {
  Solution solution;
  solution.offsets.reserve(offsets.size());
  for (const std::int64_t offset : offsets) solution.offsets.push_back({offset});
  solution.height = {height};
  solution.order = std::move(order);
  return solution;
}

std::vector<std::int64_t> offsets_of(const Solution& solution) {
  std::vector<std::int64_t> offsets;
  offsets.reserve(solution.offsets.size());
  for (const Offset offset : solution.offsets) offsets.push_back(offset.value);
  return offsets;
}

// One solve: collects candidates, best first, until one reaches the target.
class Solve {
 public:
  Solve(const Instance& instance, const SolveOptions& options)
      : instance_(instance),
        problem_(instance.buffers),
        options_(options),
        target_(target_height(instance.bound, options.good_enough)),
        effort_(options.improvement_steps, options.should_stop),
        improver_(problem_, options.first, target_, options.seed, effort_) {}

  Candidate run() {
    try_warm_orders();
    if (!is_done()) try_levels();
    if (options_.first.empty() && problem_.count() > kTooManyForPasses) return fill_only();
    const bool can_fill = options_.first.empty() && problem_.fixed_buffers.empty();
    // Where there are many buffers one fill costs less than two orders.
    const std::size_t early = can_fill && problem_.count() > kManyBuffers ? 1 : 0;
    if (!is_done()) try_valleys(0, early);
    if (!is_done()) try_orders();
    if (can_fill && !is_done()) try_valleys(early, kFillRules.size());
    if (!is_done()) promote_all();
    if (!is_done()) squeeze_all();
    if (is_done()) return std::move(candidates_.front());
    return improver_.search(std::move(candidates_.front()));
  }

 private:
  bool is_stopped() const { return options_.should_stop && options_.should_stop(); }
  bool is_done() const {
    return !candidates_.empty() && (candidates_.front().height <= target_ || is_stopped());
  }

  void keep(Candidate candidate) {
    if (candidate.height == Pass::kNoLimit) return;
    if (candidate.height > target_ && !is_stopped() && count_high(candidate) <= kFewHigh) {
      candidate = improver_.promote(std::move(candidate), kEarlyPromotions);
    }
    candidates_.push_back(std::move(candidate));
    sort();
  }
  void sort() {
    std::stable_sort(candidates_.begin(), candidates_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.height < b.height; });
  }

  void try_warm_orders() {
    for (const auto& order : options_.warm_orders) {
      if (problem_.count() > kTooManyForPasses) return;
      keep(improver_.evaluate(order, FitRule::kFirst));
      if (is_done()) return;
    }
  }

  // Whole layers, each kind planned once (Note [Two levels]).
  void try_levels() {
    if (options_.is_single_level || !options_.first.empty() || problem_.count() < kFewBuffers) {
      return;
    }
    SolveOptions above;
    above.is_single_level = true;
    above.improvement_steps = 0;
    above.should_stop = options_.should_stop;
    auto offsets = plan_by_levels(
        instance_, [&](const Instance& whole) { return offsets_of(solve(whole, above)); });
    if (offsets) keep(improver_.adopt(std::move(*offsets), false));
  }

  // The rules [begin, end).
  void try_valleys(std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      ValleyPlan plan = fill_parts(instance_, std::span(kFillRules).subspan(i, 1), target_, {});
      if (plan.height >= limit()) continue;
      keep(improver_.adopt(std::move(plan.offsets), plan.is_packed));
      if (is_done()) return;
    }
  }

  // Plans by valleys alone.
  Candidate fill_only() {
    ValleyPlan plan = fill_parts(instance_, kFillRules, target_, options_.should_stop);
    Candidate best{plan.height, std::move(plan.offsets), {}};
    best.order = order_by_offset(best.offsets);
    return best;
  }

  // How many buffers end above the target.
  std::size_t count_high(const Candidate& candidate) const {
    std::size_t high = 0;
    for (std::uint32_t b = 0; b < problem_.count(); ++b) {
      if (candidate.offsets[b] + problem_.sizes[b] > target_) ++high;
    }
    return high;
  }

  // The candidate with the fewest buffers above the target comes first: it is nearest to a plan
  // that reaches it, whatever its height.
  void promote_all() {
    std::vector<std::pair<std::size_t, std::size_t>> keys;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      keys.emplace_back(count_high(candidates_[i]), i);
    }
    std::sort(keys.begin(), keys.end());
    for (const auto& [high, i] : keys) {
      if (effort_.is_spent(kPromoteShare)) break;
      candidates_[i] = improver_.promote(std::move(candidates_[i]), kPromotions);
      if (candidates_[i].height <= target_) break;
    }
    sort();
  }

  void try_orders() {
    const GreedyOrders orders(problem_, instance_.sections);
    for (const OrderRule rule : kOrderRules) {
      keep(improver_.evaluate(orders.make(rule), FitRule::kFirst, limit()));
      if (is_done()) return;
    }
    if (problem_.count() > kManyBuffers) return;
    for (const OrderRule rule : {OrderRule::kSize, OrderRule::kBirth}) {
      keep(improver_.evaluate(orders.make(rule), FitRule::kBest));
      if (is_done()) return;
    }
  }

  std::int64_t limit() const {
    if (candidates_.empty() || problem_.count() <= kManyBuffers) return Pass::kNoLimit;
    const std::int64_t best = candidates_.front().height;
    return best + best / kClearlyWorse + 1;
  }

  void squeeze_all() {
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      if (effort_.is_spent(kSqueezeShare)) break;
      improver_.squeeze(candidates_[i], kTurns);
      if (candidates_[i].height <= target_) break;
    }
    sort();
  }

  const Instance& instance_;
  const CompactProblem& problem_;  // the instance's
  const SolveOptions& options_;
  std::int64_t target_;
  Effort effort_;
  Improver improver_;
  std::vector<Candidate> candidates_;  // lowest first; never empty after the first order
};

}  // namespace

Result<Solution> solve(const Problem& problem, const SolveOptions& options) {
  const Status checked = check(problem);
  if (!checked.ok()) return checked.error();
  const Status valid_options = check_options(options, problem.buffers.size());
  if (!valid_options.ok()) return valid_options.error();
  return solve(Instance(problem), options);
}

Solution solve(const Instance& instance, const SolveOptions& options) {
  Candidate best = Solve(instance, options).run();
  return to_solution(best.offsets, best.height, std::move(best.order));
}

Solution place(const Problem& problem, std::span<const std::uint32_t> order) {
  return place(compact(problem), order);
}

Solution place(const CompactProblem& problem, std::span<const std::uint32_t> order) {
  EBBTIDE_CHECK_OP(order.size(), ==, problem.count());
  EBBTIDE_CHECK(are_distinct(order, problem.count()));
  Pass pass(problem);
  const std::int64_t height = pass.run(order, FitRule::kFirst);
  return to_solution(pass.offsets(), height, {order.begin(), order.end()});
}

}  // namespace ebbtide
