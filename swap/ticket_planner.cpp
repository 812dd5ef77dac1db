#include "swap/ticket_planner.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "allocator/base/check.h"
#include "allocator/base/log.h"
#include "allocator/plan/lower_bound.h"
#include "allocator/plan/solver.h"
#include "allocator/plan/validator.h"
#include "swap/places.h"

namespace ebbtide {

std::optional<Offset> TicketPlanner::propose(Bytes bytes) {
  const std::size_t turn = round_.size();
  if (turn == 0) {
    collect_plan();
    const Plan* plan = plan_beginning_with(bytes);
    followed_.reset();
    if (plan != nullptr) {
      followed_ = static_cast<std::size_t>(plan - plans_.data());
      plan_height_ = plan->solution.height;
      plan_lower_bound_ = plan->lower_bound;
    }
  }
  if (!followed_) return std::nullopt;
  const Plan& plan = plans_[*followed_];
  if (turn >= plan.round.size() || plan.round[turn].bytes < bytes) return std::nullopt;
  return plan.solution.offsets[turn];
}

std::size_t TicketPlanner::begin(Bytes bytes) {
  if (followed_) {
    const Round& planned = plans_[*followed_].round;
    const std::size_t turn = round_.size();
    if (turn >= planned.size() || planned[turn].bytes < bytes) followed_.reset();
  }
  live_ += 1;
  if (round_.size() == kMostTurns) {
    is_whole_ = false;
    return kMostTurns;
  }
  round_.push_back({bytes, now_, Tick{-1}});
  now_ = now_ + 1;
  return round_.size() - 1;
}

bool TicketPlanner::end(std::size_t turn) {
  if (turn != kMostTurns) {
    EBBTIDE_CHECK(turn < round_.size() && round_[turn].death == Tick{-1});
    round_[turn].death = now_;
    now_ = now_ + 1;
  }
  live_ -= 1;
  if (live_ > 0) return false;
  finish_round();
  return true;
}

void TicketPlanner::finish_round() {
  rounds_ += 1;
  const bool is_planned = std::any_of(plans_.begin(), plans_.end(),
                                      [&](const Plan& plan) { return plan.round == round_; });
  if (is_whole_ && !is_planned && round_ == last_round_ && !making_.valid()) {
    making_ = std::async(std::launch::async, &TicketPlanner::make, round_);
  }
  last_round_ = std::exchange(round_, {});
  now_ = Tick{0};
  is_whole_ = true;
}

const TicketPlanner::Plan* TicketPlanner::plan_beginning_with(Bytes bytes) const {
  const Plan* best = nullptr;
  for (const Plan& plan : plans_) {
    const Bytes first = plan.round.front().bytes;
    if (first < bytes) continue;
    if (best == nullptr || first <= best->round.front().bytes) best = &plan;
  }
  return best;
}

void TicketPlanner::collect_plan() {
  if (!making_.valid() || making_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    return;
  }
  std::optional<Plan> plan = making_.get();
  if (!plan) return;
  if (plans_.size() == kMostPlans) plans_.erase(plans_.begin());
  plans_.push_back(std::move(*plan));
}

void TicketPlanner::settle() {
  if (making_.valid()) making_.wait();
}

std::optional<TicketPlanner::Plan> TicketPlanner::make(Round round) {
  Problem problem;
  for (const Lifetime& ticket : round) {
    problem.buffers.push_back({.size = Places::occupied(ticket.bytes),
                               .live = {{ticket.birth, ticket.death}},
                               .alignment = Places::kAlignment,
                               .fixed = {}});
  }
  // Tickets die in nearly the reverse of their order, for which the order of births is best.
  std::vector<std::uint32_t> births(round.size());
  std::iota(births.begin(), births.end(), 0U);
  SolveOptions options;
  options.warm_orders.push_back(std::move(births));
  Result<Solution> solution = solve(problem, options);
  Status judged = solution.ok() ? validate(problem, solution.value()) : solution.error();
  if (!judged.ok()) {
    EBBTIDE_WARN("no plan for swapped bytes: %s", judged.error().message.c_str());
    return std::nullopt;
  }
  return Plan{std::move(round), std::move(solution).value(), max_load(problem)};
}

}  // namespace ebbtide
