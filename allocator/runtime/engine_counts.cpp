// How each request was served, in numbers, and why the first one was not.
#include <cstddef>
#include <cstdio>

#include "allocator/base/log.h"
#include "allocator/runtime/engine.h"

namespace ebbtide {

// What an optimizer creates in its step is kept for good: it was never the plan's to serve, though the arena may have had room.
bool Engine::is_settled(const Placing& placing) const {
  const bool is_no_plans = placing.kind == Placing::Kind::kUpstream || (placing.kind == Placing::Kind::kGap && placing.node < 0);
  return has_served_ && !(is_in_optimizer_step() && is_no_plans);
}

void Engine::count(const Placing& placing, Bytes size) {
  counters_.all.add(size);
  const bool settled = is_settled(placing);
  if (settled) counters_.settled.add(size);
  switch (placing.kind) {
    case Placing::Kind::kUpstream: counters_.unplanned.add(size); break;
    case Placing::Kind::kPlanned:
      counters_.planned.add(size);
      if (settled) counters_.settled_planned.add(size);
      break;
    case Placing::Kind::kGap: counters_.gap.add(size); break;
    case Placing::Kind::kDiverged: counters_.diverged.add(size); break;
  }
  if (placing.cause) [[unlikely]] note_divergence(placing, size);
}

void Engine::note_divergence(const Placing& placing, Bytes size) {
  counters_.divergences[static_cast<std::size_t>(*placing.cause)] += 1;
  if (!counters_.first_divergence.empty() && log_level() < LogLevel::kDebug) return;
  char text[240];
  int length = std::snprintf(text, sizeof(text), "round %u, request %zu, %s: %s", recorder_.round().serial,
                             recorder_.round().requests.size() - 1, to_string(size).c_str(), to_string(*placing.cause));
  if (*placing.cause == Divergence::kPlaceTaken) {
    std::snprintf(text + length, sizeof(text) - static_cast<std::size_t>(length), " by request %u of round %u",
                  placing.holder.request, placing.holder.round);
  }
  EBBTIDE_DEBUG("%s", text);
  if (!counters_.first_divergence.empty()) return;
  counters_.first_divergence = text;
}

}  // namespace ebbtide
