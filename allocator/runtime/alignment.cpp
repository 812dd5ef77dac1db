#include "allocator/runtime/alignment.h"

#include <algorithm>
#include <limits>

#include "allocator/runtime/matcher.h"

namespace ebbtide {
namespace {

Bytes smallest_recorded(const Program& program, const Round& round) {
  Bytes smallest{std::numeric_limits<std::int64_t>::max()};
  for (const Request& request : round.requests) smallest = std::min(smallest, request.size);
  for (const Node& node : program.nodes) smallest = std::min(smallest, node.slot);
  return smallest;
}

}  // namespace

Alignment align(const Program& program, const Round& round) {
  Alignment result;
  Matcher matcher;
  matcher.begin(program, smallest_recorded(program, round));
  Bytes matched;
  Bytes total;
  for (const Request& request : round.requests) {
    const std::optional<Match> match = matcher.match(request.size);
    result.node.push_back(match ? static_cast<std::int64_t>(match->node) : -1);
    total += request.size;
    if (match) matched += request.size;
  }
  // What the program expects and the round lacks counts against it, too.
  for (std::uint32_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    if (!matcher.was_matched(i) && node.missed == 0 && !node.unplanned) total += matcher.expected(i);
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
