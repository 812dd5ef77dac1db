// Where the tickets of a round belong, once rounds repeat: offsets from the planner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <future>
#include <optional>
#include <vector>

#include "allocator/base/units.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solution.h"

namespace ebbtide {

// A round is what happens between two moments without a live ticket: a forward and its backward. A
// round that equals the one before it, sizes and order of births and deaths, is planned in the
// background; from then on rounds that begin like it follow the plan, smaller tickets included (a
// plan for the longest sequence holds for the shorter ones). What does not match has no planned
// offset, and its owner takes any free one.
//
// Serialised by its owner. Constant time per ticket; a round's end costs a comparison.
//
// Invariants: (1) live = births - deaths of this round; (2) turns are numbered from 0 in each
// round.
class TicketPlanner {
 public:
  static constexpr std::size_t kMostPlans = 8;  // the latest ones; lengths of training vary

  // A round of more tickets than this is not remembered: one that a program never lets end, because
  // it holds on to a graph, must not grow without bound.
  static constexpr std::size_t kMostTurns = std::size_t{1} << 20;

  // The planned offset of a ticket that would be born next; absent if there is none. Changes
  // nothing but, at the start of a round, which plan is followed.
  std::optional<Offset> propose(Bytes bytes);
  // A ticket is born; returns its turn: kMostTurns if it is not remembered.
  std::size_t begin(Bytes bytes);
  // The ticket of that turn has died. True if it was the last live one: the round is over.
  bool end(std::size_t turn);

  std::int64_t rounds() const { return rounds_; }
  // Of the plan followed at present, or last; zero if there was none.
  Bytes plan_height() const { return plan_height_; }
  Bytes plan_lower_bound() const { return plan_lower_bound_; }
  // Waits for a plan being made: for tests.
  void settle();

 private:
  struct Lifetime {
    Bytes bytes;
    Tick birth, death;
    bool operator==(const Lifetime&) const = default;
  };
  using Round = std::vector<Lifetime>;
  struct Plan {
    Round round;
    Solution solution;
    Bytes lower_bound;
  };

  static std::optional<Plan> make(Round round);
  void finish_round();
  void collect_plan();
  const Plan* plan_beginning_with(Bytes bytes) const;

  Round round_;           // of this round, so far; at most kMostTurns
  bool is_whole_ = true;  // nothing of it is missing
  Tick now_;
  std::int64_t live_ = 0;
  Round last_round_;
  std::vector<Plan> plans_;              // oldest first
  std::optional<std::size_t> followed_;  // index in plans_; absent: none fits this round
  std::future<std::optional<Plan>> making_;
  std::int64_t rounds_ = 0;
  Bytes plan_height_, plan_lower_bound_;
};

}  // namespace ebbtide
