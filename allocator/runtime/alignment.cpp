#include "allocator/runtime/alignment.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "allocator/runtime/matcher.h"

namespace ebbtide {
namespace {

constexpr std::size_t kFewFurther = 4;  // requests

Bytes smallest_recorded(const Program& program, const Round& round) {
  Bytes smallest{std::numeric_limits<std::int64_t>::max()};
  for (const Request& request : round.requests) smallest = std::min(smallest, request.size);
  for (const Node& node : program.nodes) smallest = std::min(smallest, node.slot);
  return smallest;
}

// Scratch memory that only some lengths need comes in the place of a tensor that outlives the round (a gradient), and
// that one follows as if it were new: of its own size, and as long-lived.
void give_back_to_survivors(const Program& program, const Round& round, std::vector<std::int64_t>& node) {
  const auto survives = [&](std::size_t r) { return round.requests[r].death == kAlive; };
  for (std::size_t r = 0; r < node.size(); ++r) {
    if (node[r] < 0 || survives(r)) continue;
    const Node& taken = program.nodes[static_cast<std::size_t>(node[r])];
    const bool may_survive = taken.survives() || taken.death < Tick{0};  // a new variant's lifetimes are not known
    const bool never_varied = std::all_of(taken.sizes.begin(), taken.sizes.end(), [&](Bytes size) { return size == taken.slot; });
    if (!may_survive || !never_varied || round.requests[r].size == taken.slot) continue;
    for (std::size_t next = r + 1; next < node.size() && next < r + kFewFurther; ++next) {
      if (node[next] >= 0 || !survives(next) || round.requests[next].size != taken.slot) continue;
      std::swap(node[r], node[next]);
      break;
    }
  }
}

}  // namespace

// Between two requests in their places, as many were not recognised as nodes were passed over: they are those, at
// sizes that follow no rule (the scratch memory of reductions grows in stairs).
void pair_unrecognised(const Program& program, const Round& round, std::vector<std::int64_t>& node,
                       const std::vector<bool>& is_used) {
  std::size_t r = 0;
  std::int64_t before = -1;  // node of the last request in its place
  while (r < node.size()) {
    if (node[r] >= 0) {
      before = std::max(before, node[r++]);
      continue;
    }
    std::size_t end = r;
    while (end < node.size() && node[end] < 0) ++end;
    const std::int64_t after = end < node.size() ? node[end] : static_cast<std::int64_t>(program.nodes.size());
    std::vector<std::int64_t> free;      // what every round has had
    std::vector<std::int64_t> optional;  // and what some have lacked
    for (std::int64_t i = before + 1; i < after; ++i) {
      if (is_used[static_cast<std::size_t>(i)]) continue;
      (program.nodes[static_cast<std::size_t>(i)].missed == 0 ? free : optional).push_back(i);
    }
    if (free.empty()) free = optional;
    const bool is_pair = free.size() == end - r || (!optional.empty() && free == optional && end - r < free.size());
    for (std::size_t k = 0; is_pair && k < end - r; ++k) {
      const bool survives = program.nodes[static_cast<std::size_t>(free[k])].survives();
      if (survives == (round.requests[r + k].death == kAlive)) node[r + k] = free[k];
    }
    r = end;
  }
}

Alignment align(const Program& program, const Round& round) {
  Alignment result;
  Matcher matcher;
  matcher.begin(program, smallest_recorded(program, round), round.extents);
  std::vector<bool> is_used(program.nodes.size(), false);
  for (const Request& request : round.requests) {
    const std::optional<Match> match = matcher.match(request.size);
    result.node.push_back(match ? static_cast<std::int64_t>(match->node) : -1);
    if (match) is_used[match->node] = true;
  }
  give_back_to_survivors(program, round, result.node);
  pair_unrecognised(program, round, result.node, is_used);
  Bytes matched;
  Bytes total;
  for (std::size_t r = 0; r < result.node.size(); ++r) {
    total += round.requests[r].size;
    if (result.node[r] < 0) continue;
    matched += round.requests[r].size;
    is_used[static_cast<std::size_t>(result.node[r])] = true;
  }
  // What the program expects and the round lacks counts against it, too.
  for (std::uint32_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    if (!is_used[i] && node.missed == 0 && !node.unplanned) total += matcher.expected(i);
  }
  result.share = total.value > 0 ? static_cast<double>(matched.value) / static_cast<double>(total.value) : 1.0;
  return result;
}

bool leaves_other_residents(const Program& program, const Round& round) {
  const Alignment alignment = align(program, round);
  Bytes kept;
  Bytes differing;
  for (std::size_t r = 0; r < round.requests.size(); ++r) {
    if (alignment.node[r] < 0) continue;
    const Node& node = program.nodes[static_cast<std::size_t>(alignment.node[r])];
    if (node.unplanned) continue;
    const bool survives = round.requests[r].death == kAlive;
    if (survives || node.survives()) kept += round.requests[r].size;
    if (survives != node.survives()) differing += round.requests[r].size;
  }
  return differing.value * 3 > kept.value && differing.value > 0;
}

}  // namespace ebbtide
