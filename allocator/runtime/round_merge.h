// Merges a finished round into a program: one order of nodes that contains both.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "allocator/runtime/program.h"
#include "allocator/runtime/round.h"

namespace ebbtide {

// Where the round's requests stand in the merged program.
class MergedRound {
 public:
  explicit MergedRound(std::size_t requests) : position_(requests, 0), is_node_(requests, false) {}

  bool is_node(std::size_t request) const { return is_node_[request]; }
  // Requires: is_node(request).
  std::size_t node_of(std::size_t request) const { return static_cast<std::size_t>(position_[request]); }
  // A tick of the round ("before request r") as a tick of a program of `nodes` nodes.
  Tick translate(Tick tick, std::size_t nodes) const;

 private:
  friend class RoundMerge;
  std::vector<std::int64_t> position_;  // of the request's node; of the next node if it has none
  std::vector<bool> is_node_;
};

// Nodes that the round lacks stay and count as missed; requests that the program does not know are
// inserted where they occurred, with a root from `next_root`, but for those that `is_left_out` names.
// Slots, lifetimes, residents' ends and shapes then cover both. `survivors` are the round's, with roots.
MergedRound merge_round(Program& program, const Round& round, const std::vector<Survivor>& survivors,
                        const std::function<RootId()>& next_root,
                        const std::function<bool(std::size_t)>& is_left_out);

// What one plan for both would cost: its load at the peak over the larger of the loads that the program and
// the round have by themselves, with the same slots. 1 when they differ in nothing that a served round shows
// before it matters: who asks for a large tensor that the other does not ask for, and keeps others for
// other lengths of time, is better off with a plan of its own.
double cost_of_sharing(const Program& program, const Round& round);

// Removes nodes and moves every tick of the program accordingly.
void erase_nodes(Program& program, const std::function<bool(const Node&)>& is_gone);

}  // namespace ebbtide
