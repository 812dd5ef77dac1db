// Serves one round from a program: says where in the arena each request belongs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "allocator/base/event.h"
#include "allocator/runtime/arena.h"
#include "allocator/runtime/counters.h"
#include "allocator/runtime/matcher.h"
#include "allocator/runtime/program_book.h"
#include "allocator/runtime/round_recorder.h"

namespace ebbtide {

// Where a request should go.
struct Placing {
  enum class Kind : std::uint8_t { kUpstream, kPlanned, kGap, kDiverged };
  Kind kind = Kind::kUpstream;
  Offset offset{};                    // for kPlanned and kGap
  RootId root{};                      // for matched requests
  std::int32_t node = -1;             // likewise
  std::optional<Divergence> cause{};  // for kGap and kDiverged of a round that follows a program
  Origin holder{};                    // for kPlaceTaken: whose block it is
};

// What an event says of it.
constexpr Placement placement_of(Placing::Kind kind) {
  switch (kind) {
    case Placing::Kind::kUpstream: return Placement::kUpstream;
    case Placing::Kind::kPlanned: return Placement::kPlanned;
    case Placing::Kind::kGap: return Placement::kGap;
    case Placing::Kind::kDiverged: return Placement::kDiverged;
  }
  return Placement::kUpstream;
}

// Note [Gaps]
// Whatever the arena can serve, it serves, from the first round on. What no plan has a place for goes into the tightest gap,
// and the arena grows where there is none, as torch's allocator does with an expandable segment: it holds as little as that.
// Beside upstream's cache it would hold both, for good. For what an optimizer's round asks for and no plan expects it does not grow:
// that may be state, which stays. And a plan must not ask for more than gaps would:
// - the arena does not grow to a plan whose sizes are foretold and not sure (until they are), nor to one of a program that is a
//   fiction;
// - in a round that does what is not expected it grows only where nothing that is free has room, the plan's places included.
//
// Where an input decides how many pieces it is cut into, one length hardly ever makes the sequence of requests that another
// makes: such rounds have a form, and more room above their plan.
//
// Holds the book whose program it follows, so that a newer book can be published meanwhile.
// Guarded by the engine's lock. Cost: a comparison and an O(log n) look-up while the round does what is
// expected.
// What is cold is laid apart from that: in a program that does other things in between, the lines of code that a
// request goes through cost more than what is computed in them. What is called hot (here, in the arena's table and in the
// adaptor) is laid side by side.
class RoundServer {
 public:
  // `inline_steps`: the work of improving a plan that is made inline. `is_for_workspace`: as in EngineOptions, or null.
  RoundServer(Arena& arena, Bytes alignment, Bytes smallest, std::int64_t inline_steps, bool (*is_for_workspace)(Bytes))
      : arena_(arena), alignment_(alignment), smallest_(smallest), inline_steps_(inline_steps),
        is_for_workspace_(is_for_workspace) {}

  // Begins a round of this kind with these residents. Follows nothing if no program fits. On trial a request is only
  // recognised: it is served as one of no program, no plan is made inline unless gaps would need far more, and a round that
  // is nothing like its program is followed no further.
  void begin(std::shared_ptr<const ProgramBook> book, const RoundRecorder& recorder,
             const ProgramBook::Use& last_served, bool on_trial = false);
  // Begins a round that follows no program.
  void begin_in_gaps();
  // The same, of which the arena serves what it has room for as it is.
  void begin_in_idle_room();
  void end();
  // The extents of the running round's input became known.
  void note_input(const Extents& input) {
    if (is_following()) matcher_.note_input(input);
  }
  // The program asks for more than the device has: the rest of the round gets what is free in the
  // arena, first-fit, and upstream's memory.
  void give_up();

  // Requires: the request is not yet in `round`.
  Placing place(Bytes size, const RoundRecorder& recorder);

  // What nearly every request of a round is that goes as planned: the next node's, of its size, with a place inside the
  // arena, and nothing else to see to. Node null: it is not that, or not for sure, and place() knows.
  struct Next {
    const Node* node = nullptr;
    std::uint32_t index = 0;
    Offset offset;
  };
  Next plainly_next(Bytes size) const {
    if (!is_following() || is_only_recognised() || has_news() || !matcher_.is_plainly_next(size)) [[unlikely]] return {};
    const std::uint32_t index = matcher_.cursor();
    const Node& node = program_->nodes[index];
    const Place place = planned_place(index);
    const bool is_inside = size <= place.slot && place.offset + size <= Offset{arena_.extent().value};
    if (node.unplanned || !is_inside) [[unlikely]] return {};
    return {&node, index, place.offset};
  }
  // It has its place: what place() would note. Requires: plainly_next(size) has a node.
  void take_next(Bytes size) {
    requested_ += size;
    matcher_.take_next(size);
  }

  // Whether a request of this size is made by a library for a workspace of its own. It may take some microseconds to find out.
  [[gnu::cold]] bool stays_for_good(Bytes size) const;

  bool is_following() const { return matcher_.is_following(); }
  // It began on trial, whatever became of it.
  bool is_on_trial() const { return is_on_trial_; }
  // Of the requests of a trial: what a plan has a place for, and with what is of another size than was expected and fits there.
  struct Trial {
    Bytes planned;
    Bytes fitting;
  };
  const Trial& trial() const { return trial_; }
  // A program was followed to the end, or until it was not what the round did: not where its plan was refused for its height.
  bool tried_plan() const { return !was_refused_ && (is_following() || (deviated() && !lacked_memory_)); }
  // It is recognised as of a program that it may not be learnt as: nothing that it holds is known by its root.
  bool is_recognised_alone() const { return is_following() && was_refused_ && !is_on_trial_; }
  // A plan served it, all the time and as far as it was followed.
  bool is_planned() const { return is_following() && !is_on_trial_ && !was_refused_; }
  // Whether the next request may be the first one of the backward pass, as far as anybody wants to know: not while the
  // round does what its program says, up to where that has it.
  bool may_begin_backward() const {
    if (is_following() && !deviated() && matcher_.cursor() < backward_node_) [[likely]] return false;
    return true;
  }
  const Program* program() const { return program_; }
  // A request that was taken for this node, see Placing, is for what stays for good: no plan's to serve.
  bool is_permanent(std::int32_t node) const {
    return node == kStaysForGood || (node >= 0 && program_ != nullptr && program_->nodes[static_cast<std::size_t>(node)].unplanned);
  }
  // What happened in this round, for deciding whether there is something to learn from it.
  bool deviated() const { return deviations_ > 0; }
  // It turned out to be of another program than the one that it began with, for a while at least.
  bool began_with_another() const { return began_with_another_; }
  // A request that the program takes for dead at its end is alive: it is not where residents are.
  bool was_outlived(const Round& round) const;
  // The input was larger than every plan.
  bool outgrew_plans() const { return outgrew_plans_; }
  bool fits_residents() const { return fits_residents_; }
  std::int64_t inline_ns() const { return inline_ns_; }
  int inline_plans() const { return inline_plans_; }
  // Height that this round needs at most, as far as it is known.
  Bytes height() const { return height_; }
  // The round was planned, and the device could not give what the plan needs.
  bool lacked_memory() const { return lacked_memory_; }

 private:
  struct Place {
    Offset offset;
    Bytes slot;
  };

  Place planned_place(std::uint32_t node) const {
    if (!inline_places_.empty()) [[unlikely]] return inline_places_[node];
    const Node& planned = program_->nodes[node];
    return {planned.offset, planned.slot};
  }
  Placing place_node(std::uint32_t index, Bytes size, const Round& round);
  void try_planned(std::uint32_t node, Bytes size, Placing& placing) const;
  // Where a request goes that is none of a plan's.
  [[gnu::cold]] Placing unplanned(Bytes size) const;
  [[gnu::cold]] Placing in_gap_of_node(std::uint32_t node, Bytes size) const;
  [[gnu::cold]] Placing in_tightest_gap(Bytes size) const;
  bool is_only_recognised() const { return is_only_recognised_; }
  [[gnu::cold]] Placing recognise(Bytes size, const RoundRecorder& recorder);
  [[gnu::cold]] Placing at_home_or_in_gap(const Node& node, Bytes size) const;
  [[gnu::cold]] bool turn_to_plan(std::uint32_t current, const Round& round);
  [[gnu::cold]] Placing in_gap(Bytes size, Divergence cause, Origin holder = {});
  [[gnu::cold]] bool is_lost(Bytes size, Divergence cause);
  // Where the arena is taken whole, it is at the height of a plan: see ArenaRange.
  bool can_grow() const { return arena_.range().grows_in_place(); }
  [[gnu::cold]] Placing in_idle_room(Bytes size, Divergence cause, Origin holder);
  [[gnu::cold]] Placing in_any_gap(Bytes size, Divergence cause, Origin holder) const;
  bool is_above_extent(Offset offset, Bytes size) const { return offset + size > Offset{arena_.extent().value}; }
  [[gnu::cold]] bool is_guesswork() const;
  [[gnu::cold]] bool is_sure() const;
  bool has_no_plan_left() const;
  [[gnu::cold]] Bytes largest_excess(std::uint32_t current) const;
  // Whether the rest of the round can be served by a plan.
  enum class Outlook : std::uint8_t {
    kPlanned,
    kInGaps,    // by none that is worth its memory
    kNoMemory,  // by none that the device could hold
  };
  Outlook see_to_plan(std::uint32_t current, const Round& round);
  // False when the plan needs more than is acceptable, and than there is: what was in force stays.
  [[gnu::cold]] bool plan_inline(std::uint32_t current, const Round& round, Bytes acceptable);
  [[gnu::cold]] bool plan_lower(std::uint32_t current, const Round& round);
  [[gnu::cold]] bool plan_around_overdue(std::uint32_t current, Bytes size, const Round& round);
  [[gnu::cold]] bool plan_for_outgrown(std::uint32_t current, const Round& round);
  [[gnu::cold]] bool plan_rather_than_beside(std::uint32_t current, Bytes size, const Round& round);
  // Height of a plan that leaves nothing beside the arena, where so much would be.
  [[gnu::cold]] Bytes acceptable_beside(Bytes beside) const;
  [[gnu::cold]] void take_second_twin(const Round& round);
  [[gnu::cold]] bool has_displaced() const;
  [[gnu::cold]] Bytes load_beside_plan(std::uint32_t current) const;
  // Whether see_to_plan() has something to see to.
  bool has_news() const { return matcher_.has_news() || must_replan_ || is_displaced_; }
  [[gnu::cold]] Match what_is_planned(const Match& match, Bytes size);
  [[gnu::cold]] Placing place_with_news(std::uint32_t node, Bytes size, const Round& round);
  // Of a request that is not the next one.
  [[gnu::cold]] bool is_in_doubt(const std::optional<Match>& match, std::uint32_t cursor_before, Bytes size);
  [[gnu::cold]] bool follow_better(const RoundRecorder& recorder, Bytes size);
  [[gnu::cold]] void follow_nothing();
  void expect_backward(const Round& round);
  [[gnu::cold]] void follow_in_gaps();
  [[gnu::cold]] void only_recognise();
  [[gnu::cold]] void follow(const Program& program, const Round& round);
  std::vector<Span> places_still_needed() const;

  Arena& arena_;
  Bytes alignment_;
  Bytes smallest_;  // no request is smaller
  std::int64_t inline_steps_;
  bool (*is_for_workspace_)(Bytes);
  std::shared_ptr<const ProgramBook> book_;
  const Program* program_ = nullptr;
  Matcher matcher_;
  std::vector<Place> inline_places_;  // when not empty, instead of the program's own
  std::uint32_t backward_node_ = 0;   // the backward pass begins no earlier: see may_begin_backward()
  Bytes height_;
  bool fits_residents_ = false;
  int deviations_ = 0;
  int unexpected_ = 0;
  int doubts_ = 0;
  std::size_t followed_since_ = 0;    // request of the round from which on program_ is followed
  bool began_with_another_ = false;   // see there
  bool must_replan_ = false;          // program_ was changed: its plan meets what is live
  std::optional<Bytes> height_before_;  // of the plan in force until then
  bool is_displaced_ = false;         // something large that is alive lies where the plan does not know of it
  bool is_lowered_ = false;           // a plan for this round's own sizes was tried before the arena grew
  Bytes requested_;                   // since the round follows a program
  Bytes unexpected_bytes_;            // of requests that were no node's
  Bytes above_;                       // of requests that were placed above the plan
  int strays_ = 0;                    // how many of them were no node's
  Bytes overdue_cost_;                // of requests whose places were still taken, since the last plan
  Bytes beside_;                      // of requests that had neither a place nor a gap, since that was looked at last
  int outgrown_ = 0;                  // requests larger than their places, since there is no plan left
  int further_plans_ = 0;             // made all the same
  bool outgrew_plans_ = false;
  bool lacked_memory_ = false;
  bool was_refused_ = false;          // the plan, for what it would have needed
  int inline_plans_ = 0;
  std::int64_t inline_ns_ = 0;
  int gap_searches_ = 0;
  bool is_on_trial_ = false;
  bool is_only_recognised_ = false;   // it is on trial, or no plan was worth its memory: see recognise()
  bool is_weighed_ = false;           // likewise: what gaps will need was compared with a plan
  int recognised_ = 0;                // likewise: requests of the expected size
  int deviations_before_ = 0;         // likewise: deviations of the round until then
  Trial trial_;
  bool serves_unknown_ = false;       // no program: the arena's gaps serve it
  bool may_grow_ = false;             // likewise, and let it grow: see Note [Gaps]
  bool has_form_ = false;             // the round followed is of a form
};

}  // namespace ebbtide
