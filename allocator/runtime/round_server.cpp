#include "allocator/runtime/round_server.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "allocator/runtime/program_choice.h"
#include "allocator/runtime/round_recorder.h"

namespace ebbtide {
namespace {

constexpr int kMaxGapSearches = 256;      // a round; each is linear in the program
constexpr int kUnexpectedBeforeDoubt = 3; // then other programs are tried on the round so far
constexpr int kMaxDoubts = 8;             // a round
constexpr std::size_t kMaxReplay = 1024;  // requests of the round so far
constexpr std::int64_t kLostPart = 16;   // of the plan's height
constexpr std::int64_t kAbovePart = 128;  // likewise: what may stand above it before its places are made use of
constexpr int kStrays = 8;                // requests: one large one more is no other program
constexpr Bytes kSmallestWorkspace = kMiB;  // to find out whom a request is for may take some microseconds
constexpr Bytes kLargestWorkspace{128 * kMiB.value};

}  // namespace

void RoundServer::begin(std::shared_ptr<const ProgramBook> book, const RoundRecorder& recorder,
                        const ProgramBook::Use& last_served, bool on_trial) {
  end();
  is_on_trial_ = is_only_recognised_ = on_trial;
  book_ = std::move(book);
  const std::vector<ProgramBook::Resident> residents = recorder.residents();
  const Round& round = recorder.round();
  program_ = book_->choose(round, residents, last_served);
  if (program_ == nullptr) {
    serves_unknown_ = round.kind != RoundKind::kOptimizer || can_grow();
    may_grow_ = round.kind != RoundKind::kOptimizer && can_grow();
    return;
  }
  has_form_ = round.has_form();
  may_grow_ = on_trial && can_grow();
  fits_residents_ = ProgramBook::fits(*program_, residents);
  if (!on_trial) height_ = program_->height;
  matcher_.begin(*program_, smallest_, round.extents);
  expect_backward(round);
  is_displaced_ = !on_trial && has_displaced();
}

void RoundServer::begin_in_gaps() {
  end();
  follow_in_gaps();
}

void RoundServer::begin_in_idle_room() {
  end();
  follow_nothing();
}

void RoundServer::end() {
  matcher_.end();
  program_ = nullptr;
  inline_places_.clear();
  height_ = Bytes{};
  fits_residents_ = false;
  serves_unknown_ = may_grow_ = is_on_trial_ = is_only_recognised_ = is_weighed_ = has_form_ = false;
  deviations_ = unexpected_ = doubts_ = inline_plans_ = further_plans_ = outgrown_ = gap_searches_ = recognised_ = strays_ = deviations_before_ = 0;
  followed_since_ = 0;
  must_replan_ = began_with_another_ = is_displaced_ = outgrew_plans_ = is_lowered_ = lacked_memory_ = was_refused_ = false;
  height_before_.reset();
  above_ = overdue_cost_ = unexpected_bytes_ = beside_ = requested_ = Bytes{};
  trial_ = {};
  inline_ns_ = 0;
}

void RoundServer::give_up() {
  lacked_memory_ = lacked_memory_ || is_following() || is_on_trial_;
  follow_nothing();
  may_grow_ = false;
}

void RoundServer::follow_nothing() {
  matcher_.end();
  program_ = nullptr;
  serves_unknown_ = true;
}

// A forward without a known backward may get one at any time, and then ends otherwise (RoundCutter). Of rounds of other kinds it
// matters only to what is learnt of them, and nothing is learnt while they do what they did.
void RoundServer::expect_backward(const Round& round) {
  const std::vector<Node>& nodes = program_->nodes;
  const RootId first = program_->first_of_backward;
  const auto found = std::find_if(nodes.begin(), nodes.end(), [first](const Node& node) { return node.root == first; });
  const bool is_known = first != RootId{} && found != nodes.end();
  backward_node_ = round.kind == RoundKind::kForward ? 0 : std::numeric_limits<std::uint32_t>::max();
  if (is_known) backward_node_ = static_cast<std::uint32_t>(found - nodes.begin());
}

// What is to come follows no program: see Note [Gaps].
void RoundServer::follow_in_gaps() {
  const bool is_step = program_ != nullptr && program_->kind == RoundKind::kOptimizer;
  follow_nothing();
  may_grow_ = !is_step && can_grow();
}

// What is to come follows no plan, unless it turns out that one needs far less than gaps.
void RoundServer::only_recognise() {
  was_refused_ = true;
  deviations_before_ = deviations_;
  if (program_->kind == RoundKind::kOptimizer) return follow_in_gaps();
  is_only_recognised_ = true;
  is_weighed_ = false;
  may_grow_ = can_grow();
  height_ = Bytes{};
  inline_places_.clear();
}

Placing RoundServer::place(Bytes size, const RoundRecorder& recorder) {
  if (!is_following()) [[unlikely]] return serves_unknown_ ? unplanned(size) : Placing{};
  if (is_only_recognised()) [[unlikely]] return recognise(size, recorder);
  requested_ += size;
  const std::uint32_t cursor_before = matcher_.cursor();
  std::optional<Match> match = matcher_.match(size);
  if (match && program_->nodes[match->node].unplanned) [[unlikely]] match = what_is_planned(*match, size);
  const bool is_next = match && match->node <= cursor_before;
  if (!is_next && is_in_doubt(match, cursor_before, size) && follow_better(recorder, size)) [[unlikely]] match = matcher_.match(size);
  if (!match) [[unlikely]] return in_gap(size, Divergence::kUnexpected);
  if (matcher_.lone_twin()) [[unlikely]] take_second_twin(recorder.round());
  if (has_news()) [[unlikely]] return place_with_news(match->node, size, recorder.round());
  return place_node(match->node, size, recorder.round());
}

// The node is of something that was made once, a library's workspace most likely. What comes later and is of its size is the
// next node of that size, if there is one.
Match RoundServer::what_is_planned(const Match& match, Bytes size) {
  if (is_for_workspace_ == nullptr || stays_for_good(size)) return match;
  return matcher_.match(size).value_or(match);
}

// The plan may not be what the round needs any more.
Placing RoundServer::place_with_news(std::uint32_t node, Bytes size, const Round& round) {
  switch (see_to_plan(node, round)) {
    case Outlook::kPlanned: break;
    case Outlook::kInGaps: only_recognise(); return in_gap_of_node(node, size);
    case Outlook::kNoMemory: give_up(); return {Placing::Kind::kDiverged, {}, {}, -1, Divergence::kNoMemory, {}};
  }
  return place_node(node, size, round);
}

Placing RoundServer::in_gap_of_node(std::uint32_t node, Bytes size) const {
  Placing placing = unplanned(size);
  if (!is_following() || placing.node == kStaysForGood) return placing;
  placing.root = program_->nodes[node].root;
  placing.node = static_cast<std::int32_t>(node);
  return placing;
}

// One result, made where the caller wants it: this is on the way of every request.
Placing RoundServer::place_node(std::uint32_t index, Bytes size, const Round& round) {
  const Node& node = program_->nodes[index];
  Placing placing;
  if (!node.unplanned) [[likely]] {
    try_planned(index, size, placing);
    const bool must_grow = !placing.cause && placing.offset + size > Offset{arena_.extent().value};
    if (must_grow && plan_lower(index, round)) [[unlikely]] try_planned(index, size, placing);
    // A round that is not as planned has the arena grow only where nothing in it is free.
    if (must_grow && !placing.cause && unexpected_bytes_.value > height_.value / kAbovePart) [[unlikely]] {
      const Offset tightest = arena_.tightest_place(size, alignment_);
      if (!is_above_extent(tightest, size)) return {Placing::Kind::kGap, tightest, node.root, static_cast<std::int32_t>(index), {}, {}};
    }
    if (placing.cause == Divergence::kPlaceTaken && plan_around_overdue(index, size, round)) [[unlikely]] try_planned(index, size, placing);
    if (placing.cause == Divergence::kOutgrown && plan_for_outgrown(index, round)) [[unlikely]] try_planned(index, size, placing);
    if (placing.cause) [[unlikely]] placing = in_gap(size, *placing.cause, placing.holder);
    const bool is_beside = placing.kind == Placing::Kind::kDiverged || (placing.kind == Placing::Kind::kGap && is_above_extent(placing.offset, size));
    if (is_beside && is_following() && plan_rather_than_beside(index, size, round)) [[unlikely]] {
      Placing planned;
      try_planned(index, size, planned);
      if (!planned.cause) placing = planned;
    }
  }
  placing.root = node.root;
  placing.node = static_cast<std::int32_t>(index);
  return placing;
}

// Where the plan has it, or why it cannot be there.
void RoundServer::try_planned(std::uint32_t node, Bytes size, Placing& placing) const {
  const Place place = planned_place(node);
  const Block* holder = size > place.slot ? nullptr : arena_.holder(place.offset, size);
  placing.kind = Placing::Kind::kPlanned;
  placing.offset = place.offset;
  placing.cause.reset();
  if (size > place.slot) [[unlikely]] {
    placing.cause = Divergence::kOutgrown;
  } else if (holder != nullptr) [[unlikely]] {
    placing.cause = Divergence::kPlaceTaken;
    placing.holder = holder->origin;
  }
}

Placing RoundServer::unplanned(Bytes size) const {
  return stays_for_good(size) ? Placing{.node = kStaysForGood} : in_tightest_gap(size);
}

Placing RoundServer::in_tightest_gap(Bytes size) const {
  if (may_grow_) return {Placing::Kind::kGap, arena_.tightest_place(size, alignment_), {}, -1, {}, {}};
  const auto gap = arena_.lowest_gap(size, alignment_, {});
  return gap ? Placing{Placing::Kind::kGap, *gap, {}, -1, {}, {}} : Placing{};
}

bool RoundServer::stays_for_good(Bytes size) const {
  return is_for_workspace_ != nullptr && size >= kSmallestWorkspace && size <= kLargestWorkspace && is_for_workspace_(size);
}

bool RoundServer::was_outlived(const Round& round) const {
  const auto since = round.requests.begin() + static_cast<std::ptrdiff_t>(followed_since_);
  return std::any_of(since, round.requests.end(), [this](const Request& request) {
    return request.death == kAlive && request.node >= 0 &&
           !program_->nodes[static_cast<std::size_t>(request.node)].survives();
  });
}

// What the plan will need from here on must stay free for it.
std::vector<Span> RoundServer::places_still_needed() const {
  std::vector<Span> places;
  const auto count = static_cast<std::uint32_t>(program_->nodes.size());
  for (std::uint32_t i = matcher_.cursor(); i < count; ++i) {
    if (program_->nodes[i].unplanned) continue;
    const Place place = planned_place(i);
    places.push_back({place.offset, place.offset + place.slot});
  }
  return merged(std::move(places));
}

Placing RoundServer::in_gap(Bytes size, Divergence cause, Origin holder) {
  if (cause == Divergence::kUnexpected && stays_for_good(size)) return {.node = kStaysForGood};
  ++deviations_;
  if (cause == Divergence::kUnexpected) unexpected_bytes_ += size;
  if (program_->kind == RoundKind::kOptimizer) return in_idle_room(size, cause, holder);
  // What the arena has not grown to yet it may not have to.
  const bool is_growing = arena_.extent() < height_;
  std::optional<Offset> gap;
  if (!is_growing && ++gap_searches_ <= kMaxGapSearches) {
    const Bytes top = can_grow() ? arena_.limit() : arena_.extent();
    gap = arena_.lowest_gap_below(top, size, alignment_, places_still_needed());
  }
  const bool is_above = gap && is_above_extent(*gap, size);
  if (is_above && is_lost(size, cause)) follow_in_gaps();
  const bool is_much = !is_following() || above_.value > height_.value / (has_form_ ? kLostPart : kAbovePart);
  if (gap && !(is_above && is_much)) return {Placing::Kind::kGap, *gap, {}, -1, cause, holder};
  return in_any_gap(size, cause, holder);
}

// Of an optimizer's round: it may be state, which stays, so the arena is not to grow for it. One that cannot grow in place
// could not be taken anew either.
Placing RoundServer::in_idle_room(Bytes size, Divergence cause, Origin holder) {
  if (!can_grow() || ++gap_searches_ > kMaxGapSearches) return {};
  const auto idle = arena_.lowest_gap(size, alignment_, places_still_needed());
  return idle ? Placing{Placing::Kind::kGap, *idle, {}, -1, cause, holder} : Placing{};
}

// Whatever is planned there.
Placing RoundServer::in_any_gap(Bytes size, Divergence cause, Origin holder) const {
  const Offset tightest = arena_.tightest_place(size, alignment_);
  const bool has_room = can_grow() || !is_above_extent(tightest, size);
  return {has_room ? Placing::Kind::kGap : Placing::Kind::kDiverged, tightest, {}, -1, cause, holder};
}

// What stands above the plan is held until there is a better one. Where that becomes much and none will be made, or most of
// what is asked for is not expected, the plan is worth less than the memory it leaves idle, and the rest of the round is
// served as one that follows none.
bool RoundServer::is_lost(Bytes size, Divergence cause) {
  above_ += size;
  strays_ += cause == Divergence::kUnexpected ? 1 : 0;
  const bool is_hopeless = has_no_plan_left() || unexpected_bytes_ + unexpected_bytes_ > requested_;
  return above_.value > height_.value / kLostPart && (has_form_ || (strays_ >= kStrays && is_hopeless));
}

// One large request too many or missing, or several of any size: the round may be of another program.
bool RoundServer::is_in_doubt(const std::optional<Match>& match, std::uint32_t cursor_before, Bytes size) {
  if (doubts_ >= kMaxDoubts) return false;
  const Bytes noticed{program_->height.value / kNoticedPart};
  bool doubtful = !match && (++unexpected_ == kUnexpectedBeforeDoubt || size > noticed);
  for (std::uint32_t i = cursor_before; match && i < match->node; ++i) {
    const Node& passed = program_->nodes[i];
    doubtful = doubtful || (matcher_.expected(i) > noticed && !passed.unplanned && passed.missed == 0 &&
                            !matcher_.was_matched(i));
  }
  doubts_ += doubtful ? 1 : 0;
  return doubtful;
}

// True when another program than the one followed so far is more like the round.
bool RoundServer::follow_better(const RoundRecorder& recorder, Bytes size) {
  const Round& round = recorder.round();
  if (round.requests.size() > kMaxReplay) return false;
  const std::vector<ProgramBook::Resident> residents = recorder.residents();
  const Program& best = closest_program(*book_, *program_, {round, size, smallest_, residents});
  if (&best == program_) return false;
  fits_residents_ = ProgramBook::fits(best, residents);
  follow(best, round);
  return true;
}

// From here on the round is of this program, and what it requested so far are tensors of this program.
void RoundServer::follow(const Program& program, const Round& round) {
  height_before_ = height_;
  program_ = &program;
  inline_places_.clear();
  if (!is_only_recognised()) height_ = program.height;
  followed_since_ = round.requests.size();
  began_with_another_ = true;
  must_replan_ = true;
  matcher_.begin(program, smallest_, round.extents);
  expect_backward(round);
  std::vector<RootId> roots;
  for (const Request& request : round.requests) {
    const std::optional<Match> match = matcher_.match(request.size);
    roots.push_back(match ? program.nodes[match->node].root : RootId{});
  }
  for (auto& [offset, block] : arena_.blocks()) {
    // What took any place when memory was out was not written down: its request is past the last one.
    if (block.origin.round == round.serial && block.origin.request < roots.size()) block.root = roots[block.origin.request];
  }
}

}  // namespace ebbtide
