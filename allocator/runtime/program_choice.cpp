#include "allocator/runtime/program_choice.h"

#include "allocator/runtime/matcher.h"

namespace ebbtide {
namespace {

Bytes difference(const Program& program, const RunningRound& running) {
  Matcher matcher;
  matcher.begin(program, running.smallest, running.round.extents);
  Bytes sum;
  for (const Request& request : running.round.requests) {
    if (!matcher.match(request.size)) sum += request.size;
  }
  if (!matcher.match(running.next)) sum += running.next;
  for (std::uint32_t i = 0; i < matcher.cursor(); ++i) {
    const Node& node = program.nodes[i];
    const bool is_due = node.missed == 0 && !node.unplanned && !program.is_rare(node);
    if (is_due && !matcher.was_matched(i)) sum += matcher.expected(i);
  }
  return sum;
}

}  // namespace

const Program& closest_program(const ProgramBook& book, const Program& followed, const RunningRound& running) {
  const Round& round = running.round;
  const bool same_residents = ProgramBook::fits(followed, running.residents);
  const bool knows_batches = followed.knows_such_inputs(round.extents);
  const Program* best = &followed;
  Bytes least = difference(followed, running);
  for (const Program& candidate : book.programs) {
    if (!candidate.planned || candidate.kind != round.kind || candidate.source != round.source) continue;
    if (same_residents && !ProgramBook::fits(candidate, running.residents)) continue;
    if (knows_batches && !candidate.knows_such_inputs(round.extents)) continue;
    const Bytes other = difference(candidate, running);
    if (other >= least) continue;
    best = &candidate;
    least = other;
  }
  return *best;
}

}  // namespace ebbtide
