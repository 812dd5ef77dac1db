#include "allocator/runtime/round_cutter.h"

namespace ebbtide {
namespace {

// Below this share of its peak still alive, a round has cleaned up after itself.
bool is_clean(const RoundState& round) { return round.live.value * 4 < round.peak.value; }

// Above this share a backward has left its graph for another one (torch.autograd.grad with create_graph), not gradients and
// outputs that the program still holds.
bool holds_its_graph(const RoundState& round) { return round.kept.value * 2 > round.peak.value; }

bool is_marked(RoundKind kind) { return kind != RoundKind::kUnmarked && kind != RoundKind::kOptimizer; }

}  // namespace

RoundKind RoundCutter::kind_of(MarkKind mark) {
  switch (mark) {
    case MarkKind::kUser: return RoundKind::kStep;
    case MarkKind::kForward: return RoundKind::kForward;
    case MarkKind::kInference: return RoundKind::kInference;
    case MarkKind::kOptimizer: return RoundKind::kOptimizer;
    case MarkKind::kOptimizerEnd: return RoundKind::kUnmarked;
  }
  return RoundKind::kUnmarked;
}

RoundCutter::Decision RoundCutter::decide(MarkKind mark, const RoundState& round) {
  if (mark == MarkKind::kOptimizer && round.has_seen_backward) backward_is_unmarked_ = !is_marked(round.kind);
  const bool begins_anew = backward_is_unmarked_ && round.kind == RoundKind::kOptimizer;
  if (mark == MarkKind::kOptimizerEnd && !begins_anew) return Decision::kIgnore;
  if (round.is_prologue) return Decision::kCut;
  if (round.is_empty) return Decision::kDescribe;
  if (mark != MarkKind::kForward && mark != MarkKind::kInference) return Decision::kCut;
  if (round.kind != RoundKind::kForward) return Decision::kCut;
  const bool goes_on = round.has_seen_backward ? holds_its_graph(round) : !is_clean(round);
  return goes_on ? Decision::kIgnore : Decision::kCut;
}

std::uint32_t RoundCutter::ordinal(std::uint64_t source) {
  const std::uint64_t object = source & kObject;
  const auto form = static_cast<std::uint32_t>(source >> kObjectBits) << kFormShift;
  if (object == 0) return form;
  return form | ordinals_.try_emplace(object, static_cast<std::uint32_t>(ordinals_.size()) + 1).first->second;
}

}  // namespace ebbtide
