#include "allocator/runtime/successors.h"

#include <algorithm>
#include <set>

#include "allocator/plan/lower_bound.h"

namespace ebbtide {
namespace {

constexpr std::int64_t kEarlyPart = 16;  // of the bytes may be made before the rest has gone: a stray tensor

// When what the nodes follow will have gone.
Tick begin_of(const Program& program, const std::vector<std::uint32_t>& nodes, Bytes size) {
  Tick begin = kAlive;
  Bytes made;
  for (const std::uint32_t node : nodes) {
    made += program.nodes[node].slot;
    if (made.value > size.value / kEarlyPart) {
      begin = Tick{node};
      break;
    }
  }
  for (std::uint32_t i = 0; i < program.nodes.size() && Tick{i} < begin; ++i) {
    if (program.nodes[i].root == program.first_of_backward) begin = Tick{i};
  }
  return begin;
}

}  // namespace

Successors successors_of(const Program& program, const Matcher& matcher, const Round& round) {
  Successors successors;
  if (round.previous != RoundKind::kOptimizer) return successors;
  std::set<RootId> upstream;
  for (const Survivor& survivor : round.survivors) {
    if (!survivor.in_arena && survivor.end == kAlive && survivor.root != RootId{}) upstream.insert(survivor.root);
  }
  if (upstream.empty()) return successors;
  for (std::uint32_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    if (!node.survives() || node.unplanned || matcher.was_matched(i) || !upstream.contains(node.root)) continue;
    successors.nodes.push_back(i);
    successors.size += node.slot;
  }
  successors.begin = begin_of(program, successors.nodes, successors.size);
  std::erase_if(successors.nodes, [&](std::uint32_t node) {
    if (Tick{node} >= successors.begin) return false;
    successors.size -= program.nodes[node].slot;
    return true;
  });
  return successors;
}

Problem with_successors_on_top(Problem problem, const Successors& successors, Bytes spare) {
  for (const std::uint32_t node : successors.nodes) {
    LiveRanges& live = problem.buffers[node].live;
    const Interval made = *live.begin();
    live = made.birth > successors.begin ? LiveRanges{{Tick{0}, successors.begin}, made}
                                         : LiveRanges{{Tick{0}, made.death}};
  }
  // What is made first goes to the very top: what lies there is freed first.
  Offset top{(max_load(problem) + spare).value};
  for (const std::uint32_t node : successors.nodes) {
    Buffer& buffer = problem.buffers[node];
    top = top - buffer.size;
    buffer.fixed = top;
  }
  return problem;
}

Offset bottom_of(const Successors& successors, const Problem& on_top) {
  return *on_top.buffers[successors.nodes.back()].fixed;
}

}  // namespace ebbtide
