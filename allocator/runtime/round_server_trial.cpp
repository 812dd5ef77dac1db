// A round on trial (see Backoff), or one for whose sizes no plan was worth its memory: recognised and learnt from, and served from
// gaps unless they would need far more than a plan.
#include <algorithm>
#include <optional>
#include <utility>

#include "allocator/runtime/inline_plan.h"
#include "allocator/runtime/round_server.h"

namespace ebbtide {
namespace {

constexpr int kHopeless = 64;  // requests that were not recognised, more than those that were
constexpr std::int64_t kWorthOfPlan = 64;  // of what gaps will need: what a plan must save

}  // namespace

// Any program has a request that this one might be: only what is of the size that was expected speaks for it.
Placing RoundServer::recognise(Bytes size, const RoundRecorder& recorder) {
  const std::uint32_t cursor_before = matcher_.cursor();
  std::optional<Match> match = matcher_.match(size);
  if (match && program_->nodes[match->node].unplanned) match = what_is_planned(*match, size);
  const bool is_next = match && match->node <= cursor_before;
  if (!is_next && is_in_doubt(match, cursor_before, size) && follow_better(recorder, size)) match = matcher_.match(size);
  if (!match) {
    if (++deviations_ - deviations_before_ >= kHopeless + recognised_) follow_in_gaps();
    return unplanned(size);
  }
  const Node& node = program_->nodes[match->node];
  const bool is_plain = match->exact && !node.unplanned;
  recognised_ += match->exact ? 1 : 0;
  outgrew_plans_ = outgrew_plans_ || size > node.slot;
  // What outlives whole cycles is upstream's, here too.
  Placing placing = node.unplanned && match->exact ? Placing{} : is_plain ? at_home_or_in_gap(node, size) : unplanned(size);
  if (placing.node == kStaysForGood) return placing;
  const bool must_grow = placing.kind == Placing::Kind::kGap && is_above_extent(placing.offset, size);
  if (is_plain && must_grow && turn_to_plan(match->node, recorder.round())) return place_node(match->node, size, recorder.round());
  if (is_plain) trial_.planned += size;
  if (is_plain || (!node.unplanned && size <= node.slot)) trial_.fitting += size;
  placing.root = node.root;
  placing.node = static_cast<std::int32_t>(match->node);
  return placing;
}

// What lives on is where the plans of the rounds behind this one look for it.
Placing RoundServer::at_home_or_in_gap(const Node& node, Bytes size) const {
  const auto home = node.survives() ? book_->homes.find(node.root) : book_->homes.end();
  const bool has_home = home != book_->homes.end() && size <= home->second.size && !is_above_extent(home->second.offset, size);
  if (!has_home || !arena_.is_free(home->second.offset, size)) return in_tightest_gap(size);
  return {Placing::Kind::kGap, home->second.offset, {}, -1, {}, {}};
}

// Gaps may need far more than a plan, where a few tensors have a quarter of the arena each and none fits between two others. That is
// worth a plan, though it may turn out to be wrong once more. Asked where the arena must grow, until the sizes are sure, and then
// whenever more is known of them.
bool RoundServer::turn_to_plan(std::uint32_t current, const Round& round) {
  const bool is_news = matcher_.take_news() || !is_weighed_;
  if (!is_news || has_no_plan_left() || is_guesswork() || !is_sure()) return false;
  is_weighed_ = true;
  outgrew_plans_ = outgrew_plans_ || largest_excess(current).value > 0;
  const Bytes in_gaps = height_in_gaps(*program_, matcher_, current, arena_, alignment_);
  if (!plan_inline(current, round, in_gaps - Bytes{in_gaps.value / kWorthOfPlan})) return false;
  is_only_recognised_ = false;
  is_lowered_ = true;
  // It is for what the round follows now, around all that is alive.
  must_replan_ = is_displaced_ = false;
  height_before_.reset();
  return true;
}

}  // namespace ebbtide
