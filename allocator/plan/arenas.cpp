#include "allocator/plan/arenas.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace ebbtide {
namespace {

// How far a status is from a proved optimum; the worst speaks for all.
int badness(PlanStatus status) {
  switch (status) {
    case PlanStatus::kOptimal:
      return 0;
    case PlanStatus::kFeasible:
      return 1;
    case PlanStatus::kUnknown:
      return 2;
    case PlanStatus::kInfeasible:
      return 3;
  }
  return 3;
}

}  // namespace

Bytes ArenasPlan::height() const {
  Bytes sum{0};
  for (const ArenaPlan& arena : arenas) sum += arena.height;
  return sum;
}

Bytes ArenasPlan::lower_bound() const {
  Bytes sum{0};
  for (const ArenaPlan& arena : arenas) sum += arena.lower_bound;
  return sum;
}

PlanStatus ArenasPlan::status() const {
  PlanStatus worst = PlanStatus::kOptimal;
  for (const ArenaPlan& arena : arenas) {
    if (badness(arena.status) > badness(worst)) worst = arena.status;
  }
  return worst;
}

std::size_t arena_count(const Problem& problem) {
  std::uint32_t last = 0;
  for (const Buffer& buffer : problem.buffers) last = std::max(last, buffer.arena);
  return std::size_t{last} + 1;
}

std::vector<ArenaProblem> split_arenas(const Problem& problem) {
  std::vector<ArenaProblem> arenas(arena_count(problem));
  for (std::uint32_t b = 0; b < problem.buffers.size(); ++b) {
    ArenaProblem& arena = arenas[problem.buffers[b].arena];
    arena.problem.buffers.push_back(problem.buffers[b]);
    arena.problem.buffers.back().arena = 0;
    arena.buffers.push_back(b);
  }
  return arenas;
}

std::vector<Bytes> arena_heights(const Problem& problem, std::span<const Offset> offsets) {
  std::vector<Bytes> heights(arena_count(problem), Bytes{0});
  for (std::size_t b = 0; b < problem.buffers.size(); ++b) {
    Bytes& height = heights[problem.buffers[b].arena];
    height = std::max(height, Bytes{offsets[b].value} + problem.buffers[b].size);
  }
  return heights;
}

Result<ArenasPlan> solve_arenas(const Problem& problem, const AnytimeOptions& options,
                                std::span<const std::optional<Bytes>> capacities) {
  const Status checked = check(problem);
  if (!checked.ok()) return checked.error();
  const auto capacity_of = [&](std::size_t a) {
    return a < capacities.size() ? capacities[a] : std::nullopt;
  };
  ArenasPlan plan;
  if (arena_count(problem) == 1) {  // nothing to copy
    AnytimeOptions only = options;
    only.capacity = capacity_of(0);
    auto solved = solve_anytime(problem, only);
    if (!solved.ok()) return solved.error();
    AnytimePlan one = std::move(solved).value();
    plan.arenas.push_back({one.solution.height, one.lower_bound, one.status});
    plan.solution = std::move(one.solution);
    plan.seconds = one.seconds;
    return plan;
  }
  const auto arenas = split_arenas(problem);
  plan.solution.offsets.resize(problem.buffers.size());
  for (std::size_t a = 0; a < arenas.size(); ++a) {
    AnytimeOptions own = options;
    own.capacity = capacity_of(a);
    own.time_limit =
        std::max(0.0, options.time_limit - plan.seconds) / static_cast<double>(arenas.size() - a);
    if (options.on_progress) {
      own.on_progress = [&](const PlanProgress& now) {
        options.on_progress({plan.height() + now.height, plan.lower_bound() + now.lower_bound,
                             plan.seconds + now.seconds});
      };
    }
    auto solved = solve_anytime(arenas[a].problem, own);
    if (!solved.ok()) return solved.error();
    const AnytimePlan one = std::move(solved).value();
    for (std::size_t i = 0; i < arenas[a].buffers.size(); ++i) {
      plan.solution.offsets[arenas[a].buffers[i]] = one.solution.offsets[i];
    }
    // The buffers of each arena in the order of its plan, one arena after another.
    for (const std::uint32_t i : one.solution.order) {
      plan.solution.order.push_back(arenas[a].buffers[i]);
    }
    plan.solution.height = std::max(plan.solution.height, one.solution.height);
    plan.arenas.push_back({one.solution.height, one.lower_bound, one.status});
    plan.seconds += one.seconds;
  }
  return plan;
}

}  // namespace ebbtide
