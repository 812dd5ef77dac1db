// Plans that are made while a round runs, because the one it follows does not fit what is happening.
#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "allocator/base/log.h"
#include "allocator/runtime/inline_plan.h"
#include "allocator/runtime/round_server.h"

namespace ebbtide {
namespace {

constexpr int kMaxInlinePlans = 4;  // a round; more mean that prediction does not work here: see plan_for_outgrown()
constexpr std::int64_t kLargePart = 4096;  // of the plan's height
constexpr std::int64_t kWorthPart = 64;  // of the plan's height: less is not worth a plan of its own
constexpr std::int64_t kWorsePart = 128;  // of a plan's height: by how much another one may be higher
constexpr std::int64_t kMuchWorsePart = 8;  // likewise, than the plan of the program that was followed before
constexpr std::int64_t kOpenPart = 4;  // of all that is expected: what may not come
constexpr std::int64_t kOpenPartOfOthers = 16;  // the same where later forwards have inputs of their own
constexpr std::int64_t kUnsurePart = 8;  // of all that is expected
constexpr int kFirstPatience = 4;  // requests that outgrew their places, until there is one more plan than these
constexpr std::int64_t kWorthOfExcess = 2;  // several of a kind may be alive at once
constexpr Bytes kAnyHeight{std::numeric_limits<std::int64_t>::max()};

}  // namespace

// Sees to it that there is a plan for this round's sizes, as far as there can be one.
RoundServer::Outlook RoundServer::see_to_plan(std::uint32_t current, const Round& round) {
  const Bytes excess = matcher_.take_news() ? largest_excess(current) : Bytes{};
  if (excess.value == 0 && !must_replan_ && !is_displaced_) return Outlook::kPlanned;
  if (excess.value > 0 && is_guesswork()) return Outlook::kInGaps;
  const bool has_none = must_replan_ || (excess.value > 0 && !outgrew_plans_);  // for these sizes
  outgrew_plans_ = outgrew_plans_ || excess.value > 0;
  Bytes slack{height_.value / kWorsePart + kWorthOfExcess * excess.value};
  if (std::exchange(is_displaced_, false)) slack += load_beside_plan(current);
  must_replan_ = false;
  Bytes acceptable = has_none ? kAnyHeight : height_ + slack;
  // What is foretold and not sure may come to much less than the arena would have grown to.
  // (Of a form one round tells nearly all.)
  const bool is_doubtful = excess.value > 0 && !has_form_ && !is_sure();
  if (is_doubtful) acceptable = arena_.extent();
  const std::optional<Bytes> before = std::exchange(height_before_, std::nullopt);
  if (before) acceptable = *before + Bytes{before->value / kMuchWorsePart};
  // What lives already is not what the other program has there: it would need places for both.
  if (!plan_inline(current, round, acceptable) && (before || is_doubtful)) return Outlook::kInGaps;
  if (height_ <= arena_.extent() || height_ <= arena_.limit()) return Outlook::kPlanned;
  return outgrew_plans_ && !is_sure() ? Outlook::kInGaps : Outlook::kNoMemory;
}

// Whether what is to come has the sizes that are expected, for all that is known.
bool RoundServer::is_sure() const {
  Bytes all;
  Bytes sure;
  for (std::uint32_t i = matcher_.cursor(); i < program_->nodes.size(); ++i) {
    if (program_->nodes[i].unplanned || matcher_.was_matched(i) || matcher_.is_absent(i)) continue;
    all += matcher_.expected(i);
    if (matcher_.is_sure(i)) sure += matcher_.expected(i);
  }
  return sure.value >= all.value - all.value / kUnsurePart;
}

// The shapes known leave open what many sizes follow from (of an encoder and a decoder, one length or the other or
// both): a plan for the likeliest may ask for several times what the round needs, and the arena would grow to that.
bool RoundServer::is_guesswork() const {
  if (!matcher_.mixes_tensors()) return false;
  Bytes expected;
  Bytes least;
  for (std::uint32_t i = 0; i < program_->nodes.size(); ++i) {
    if (program_->nodes[i].unplanned) continue;
    expected += matcher_.expected(i);
    least += matcher_.least(i);
  }
  const std::int64_t open = program_->repeats_module ? kOpenPartOfOthers : kOpenPart;
  return least.value < expected.value - expected.value / open;
}

bool RoundServer::has_no_plan_left() const { return inline_plans_ >= kMaxInlinePlans; }

// By how much a request to come will outgrow its place. Only what is large is worth a new plan: the rest finds a gap.
Bytes RoundServer::largest_excess(std::uint32_t current) const {
  Bytes excess;
  if (has_no_plan_left()) return excess;
  const Bytes large{height_.value / kLargePart};
  const auto count = static_cast<std::uint32_t>(program_->nodes.size());
  for (std::uint32_t i = 0; i < count; ++i) {
    if (i != current && (matcher_.was_matched(i) || i < matcher_.cursor())) continue;
    if (matcher_.is_absent(i)) continue;
    const Node& node = program_->nodes[i];
    const Bytes expected = matcher_.expected(i);
    if (program_->is_rare(node) && !matcher_.is_size_seen(i)) continue;
    if (!node.unplanned && expected > large) excess = std::max(excess, expected - planned_place(i).slot);
  }
  return excess;
}

// A tensor that lives across rounds and was placed by an inline plan need not be at home. One plan around it costs less
// than a gap for everything that was to stand there.
bool RoundServer::has_displaced() const {
  const Bytes large{height_.value / kLargePart};
  const auto is_known = [this](Offset offset, const Block& block) {
    const auto home = book_->homes.find(block.root);
    if (home != book_->homes.end() && home->second.offset == offset) return true;
    return std::any_of(book_->squatters.begin(), book_->squatters.end(),
                       [&](const Home& squatter) { return squatter.offset == offset && squatter.size == block.size; });
  };
  for (const auto& [offset, block] : arena_.blocks()) {
    if (block.size > large && !is_known(offset, block)) return true;
  }
  return false;
}

// What of the plan in force would have to go upstream: something that is alive lies in its place, or it is too small.
Bytes RoundServer::load_beside_plan(std::uint32_t current) const {
  std::vector<Home> places;
  for (std::uint32_t i = 0; i < program_->nodes.size(); ++i) {
    const Place place = planned_place(i);
    places.push_back({place.offset, place.slot});
  }
  return load_without_place(*program_, matcher_, current, arena_, places);
}

// Of two tensors of one size that come one after the other only one did: a mask is used as it is where others are padded
// first. It is what would have become of it, and so are later ones.
void RoundServer::take_second_twin(const Round& round) {
  const std::uint32_t first = *matcher_.lone_twin();
  const std::uint32_t request = static_cast<std::uint32_t>(round.requests.size()) - 1;
  if (matcher_.expected(first).value < height_.value / kWorthPart || program_->nodes[first].survives()) return;
  for (auto& [offset, block] : arena_.blocks()) {
    if (block.origin.round != round.serial || block.origin.request != request) continue;
    block.root = program_->nodes[first + 1].root;
    must_replan_ = true;
  }
  matcher_.take_second_twin();
}

// A second plan in a round meets more that cannot move. If it needs more than is acceptable, and than there is, what
// has outgrown its place finds a gap instead.
bool RoundServer::plan_inline(std::uint32_t current, const Round& round, Bytes acceptable) {
  const auto begin = std::chrono::steady_clock::now();
  InlinePlan plan = make_inline_plan(*book_, *program_, matcher_, current, arena_, alignment_,
                                     successors_of(*program_, matcher_, round), inline_steps_);
  ++inline_plans_;
  inline_ns_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
  if (plan.height > acceptable && plan.height > arena_.extent()) {
    EBBTIDE_DEBUG("no inline plan of program %u at node %u: it would need %s", program_->id, current,
                  to_string(plan.height).c_str());
    return false;
  }
  std::vector<Place> places(plan.offsets.size());
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = {plan.offsets[i], plan.slots[i]};
  inline_places_ = std::move(places);
  height_ = plan.height;
  EBBTIDE_DEBUG("inline plan of program %u at node %u: %s, the arena has %s", program_->id, current,
                to_string(height_).c_str(), to_string(arena_.extent()).c_str());
  return true;
}

// A program's plan has room for the largest size of every request it knows. A round whose own sizes need less should
// not be what the arena grows for.
bool RoundServer::plan_lower(std::uint32_t current, const Round& round) {
  if (arena_.extent().value == 0 || has_no_plan_left() || std::exchange(is_lowered_, true)) return false;
  return plan_inline(current, round, height_ - Bytes{height_.value / kWorsePart});
}

// Something that the program takes for dead lives on. Where much was to stand in its place, one plan around it costs less
// than gaps for all of that.
bool RoundServer::plan_around_overdue(std::uint32_t current, Bytes size, const Round& round) {
  overdue_cost_ = overdue_cost_ + size;
  if (has_no_plan_left() || overdue_cost_.value < height_.value / kWorthPart) return false;
  overdue_cost_ = Bytes{};
  return plan_inline(current, round, height_ + Bytes{height_.value / kWorsePart});
}

// Sizes were predicted, and predicted wrongly, as often as there are plans: what a size that was seen tells of those to
// come would help none of them. Each further plan takes twice as many requests without a place as the one before, so that
// a round in which nothing can be predicted has few.
bool RoundServer::plan_for_outgrown(std::uint32_t current, const Round& round) {
  if (!has_no_plan_left() || ++outgrown_ < kFirstPatience << further_plans_) return false;
  outgrown_ = 0;
  ++further_plans_;
  return plan_inline(current, round, acceptable_beside(load_beside_plan(current)));
}

// There is no gap for what has no place, and more will have none: memory beside the arena would be held for good, so a
// plan is worth as much more of the arena. To look at all that is to come pays once much went there.
bool RoundServer::plan_rather_than_beside(std::uint32_t current, Bytes size, const Round& round) {
  beside_ += size;
  if (has_no_plan_left() || beside_.value < height_.value / kWorthPart) return false;
  beside_ = Bytes{};
  const Bytes beside = load_beside_plan(current);
  return beside.value >= height_.value / kWorthPart && plan_inline(current, round, acceptable_beside(beside));
}

Bytes RoundServer::acceptable_beside(Bytes beside) const {
  return std::min(height_ + Bytes{height_.value / kWorsePart} + beside, arena_.limit());
}

}  // namespace ebbtide
