// Problems of several arenas, such as device memory and pinned host memory: each is planned by
// itself.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "allocator/plan/anytime.h"

namespace ebbtide {

struct ArenaPlan {
  Bytes height;
  Bytes lower_bound;
  PlanStatus status = PlanStatus::kUnknown;
};

struct ArenasPlan {
  Solution solution;              // of all buffers; its height is that of the tallest arena
  std::vector<ArenaPlan> arenas;  // by Buffer::arena
  double seconds = 0;

  // Sums over the arenas, and what is true of all: kInfeasible if one is, else kUnknown if one is,
  // else kFeasible if one is.
  Bytes height() const;
  Bytes lower_bound() const;
  PlanStatus status() const;
};

// One more than the largest Buffer::arena; 1 for no buffers.
std::size_t arena_count(const Problem& problem);

// The buffers of one arena, in their order.
struct ArenaProblem {
  Problem problem;                     // all in arena 0
  std::vector<std::uint32_t> buffers;  // which ones they are
};
std::vector<ArenaProblem> split_arenas(const Problem& problem);

// Where the highest buffer of each arena ends. Requires: an offset for each buffer; no end
// overflows.
std::vector<Bytes> arena_heights(const Problem& problem, std::span<const Offset> offsets);

// solve_anytime() for each arena, one after another, with its share of the time that is left.
// capacities[a], where given, is arena a's; options.capacity is not looked at. on_progress tells
// the sums. Errors as solve_anytime()'s.
Result<ArenasPlan> solve_arenas(const Problem& problem, const AnytimeOptions& options,
                                std::span<const std::optional<Bytes>> capacities = {});

}  // namespace ebbtide
