// Where rounds begin and end, which are learnt, and which are served.
#include "allocator/runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

constexpr std::chrono::milliseconds kLongestWait{1000};  // for one plan, while there is patience left
constexpr std::uint32_t kEager = 16;        // rounds of one program that are learnt without a pause
constexpr std::size_t kManyPrograms = 20;
constexpr int kSettled = 4;                 // rounds without one that took of the arena what it needed
constexpr Bytes kWorthFilling{64 * kMiB.value};  // what of the arena is idle, and
constexpr std::int64_t kIdlePart = 4;       // at least this part of it
constexpr std::int64_t kTrialPart = 2;      // of the highest plan: what a trial may need beyond it
constexpr std::uint32_t kFictionPause = 8;  // rounds of which a fiction is learnt once, when it has been often
constexpr std::uint32_t kPause = 32;        // rounds between learning, once there are many programs

}  // namespace

// Programs that give no hints at all (C++ without a call of ours) are cut where a backward has ended.
bool Engine::note_backward(bool is_in_backward, std::unique_lock<QuickLock>& lock) {
  if (!is_news_of_backward(is_in_backward)) return false;
  if (has_seen_backward_) cut(RoundKind::kStep, 0, {}, lock);
  has_seen_backward_ = is_in_backward;
  return true;
}

RoundState Engine::round_state() const {
  RoundState state;
  state.is_prologue = recorder_.is_prologue();
  state.is_empty = recorder_.round().empty();
  state.kind = recorder_.round().kind;
  state.has_seen_backward = has_seen_backward_;
  state.live = recorder_.live_bytes();
  state.peak = recorder_.peak_bytes();
  if (has_seen_backward_) state.kept = recorder_.live_beyond_gradients();
  return state;
}

void Engine::mark(MarkKind kind, std::uint64_t source, const Extents& input) noexcept {
  if (off_.load(std::memory_order_relaxed)) return;
  if (options_.is_in_backward != nullptr && options_.is_in_backward()) return;  // a recomputation
  std::unique_lock lock(lock_);
  has_marks_ = true;
  emit(Action::kMark, Placement::kUpstream, nullptr, {}, home_, static_cast<std::uint8_t>(kind));
  if (kind == MarkKind::kOptimizerEnd && recorder_.round().kind == RoundKind::kOptimizer) {
    recorder_.note_optimizer_end();
  }
  const RoundKind round_kind = RoundCutter::kind_of(kind);
  switch (cutter_.decide(kind, round_state())) {
    case RoundCutter::Decision::kIgnore: note_input(cutter_.ordinal(source), input); break;
    case RoundCutter::Decision::kDescribe:
      recorder_.begin_again(round_kind, cutter_.ordinal(source), arena_.blocks(), upstream_, *book_);
      recorder_.note_input(cutter_.ordinal(source), input);
      begin_serving();
      break;
    case RoundCutter::Decision::kCut: cut(round_kind, cutter_.ordinal(source), input, lock); break;
  }
  set_bypass();
}

// A round that began before its input was known: `ebbtide.step()`, then the batch, then the forward.
void Engine::note_input(std::uint32_t source, const Extents& input) {
  if (input.empty() || input == recorder_.round().extents) return;
  if (!recorder_.round().extents.empty()) return recorder_.note_other_input(source);
  recorder_.note_input(source, input);
  server_.note_input(input);
}

bool Engine::is_worth_learning() const {
  if (recorder_.round().empty() || recorder_.is_prologue() || recorder_.is_full()) return false;
  if (backoff(recorder_.round().kind).is_resting()) return false;
  const std::uint32_t serial = recorder_.round().serial;
  // A program that never settles is learnt ever more rarely.
  const auto is_due = [serial](const Program& program) {
    const std::uint32_t doublings = program.learnt <= kEager ? 0 : std::min(program.learnt - kEager, 12U);
    const std::uint32_t pause = (1U << doublings) - 1;
    return serial - program.last_round >= (program.is_fiction() ? std::min(pause, kFictionPause) : pause);
  };
  if (!server_.is_following() || server_.is_recognised_alone()) {
    // Nothing like it is known, for all that is sure: worth it, unless nothing ever repeats.
    const RoundKind kind = recorder_.round().kind;
    const std::uint32_t source = recorder_.round().source;
    const bool is_fiction_resting = std::any_of(book_->programs.begin(), book_->programs.end(), [&](const Program& program) {
      return program.kind == kind && program.source == source && program.is_fiction() && !is_due(program);
    });
    if (is_fiction_resting) return false;
    return book_->count_of(kind, source) < kManyPrograms || serial - last_learnt_round_ >= kPause;
  }
  const bool differs = server_.deviated() || server_.began_with_another() || server_.outgrew_plans() ||
                       !server_.fits_residents() || server_.was_outlived(recorder_.round());
  return differs && is_due(*server_.program());
}

void Engine::cut(RoundKind kind, std::uint32_t source, const Extents& input, std::unique_lock<QuickLock>& lock) {
  counters_.rounds += recorder_.is_prologue() ? 0 : 1;
  const bool followed = server_.is_planned() && !server_.deviated();
  counters_.planned_rounds += followed ? 1 : 0;
  counters_.inline_plans += server_.inline_plans();
  counters_.inline_ns += server_.inline_ns();
  counters_.longest_inline_ns = std::max(counters_.longest_inline_ns, server_.inline_ns());
  emit(Action::kRound, Placement::kUpstream, nullptr, {counters_.rounds}, home_, followed ? 1 : 0);
  if (options_.sink != nullptr) emit(Action::kReserved, Placement::kUpstream, nullptr, reserved_now(), home_);
  if (options_.observer != nullptr) options_.observer->round_ended();
  const bool learn = is_worth_learning();
  note_whether_it_fits();
  note_step_plan();
  EBBTIDE_DEBUG("round %u: kind %d, %zu requests, followed program %u, %d inline plans, %s", recorder_.round().serial,
                static_cast<int>(recorder_.round().kind), recorder_.round().requests.size(),
                server_.is_following() ? server_.program()->id : 0U, server_.inline_plans(),
                learn ? "worth learning" : "as known");
  if (server_.is_following()) last_served_[server_.program()->id] = recorder_.round().serial;
  if (learn) last_learnt_round_ = recorder_.round().serial;
  const bool was_free = recorder_.round().kind != RoundKind::kOptimizer && !server_.is_planned();
  const bool had_form = recorder_.round().has_form();
  rounds_as_planned_ = was_free ? 0 : rounds_as_planned_ + 1;
  if (learn && server_.is_recognised_alone()) recorder_.forget_roots(arena_.blocks());
  server_.end();
  // Parameters tell constant sizes.
  if (recorder_.is_prologue() && !tracks_all_) recorder_.note_constant_sizes(options_.observer->sizes_alive());
  Round finished = recorder_.next(kind, source, arena_.blocks(), upstream_, *book_);
  recorder_.note_input(source, input);
  has_seen_backward_ = false;
  if (learn && !options_.observe_only) {
    worker_.submit(std::move(finished), last_served_);
    if (patience_.count() > 0) {
      lock.unlock();
      const auto begin = std::chrono::steady_clock::now();
      worker_.wait_idle(std::min(patience_, kLongestWait));
      lock.lock();
      patience_ -= std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    }
  }
  adopt_latest();
  // What a form's first round took, placed as it came, is more than its plan needs: see Note [Gaps].
  if (rounds_as_planned_ >= kSettled || (was_free && had_form && learn)) shrink_to_plan(lock);
  // An optimizer's first step creates its state, and what it uses for a moment beside it: not beside an idle arena.
  if (kind == RoundKind::kOptimizer && !optimizers_seen_.contains(source)) shrink_to({}, lock);
  begin_serving();
}

// A plan that the device could not hold is one, too: whoever chooses what is kept wants to hear of it.
void Engine::note_step_plan() {
  const RoundKind kind = recorder_.round().kind;
  if (kind == RoundKind::kOptimizer || kind == RoundKind::kInference || recorder_.is_prologue()) return;
  const bool is_planned = server_.is_following() || server_.lacked_memory();
  step_height_ = is_planned ? server_.height() : Bytes{};
}

Engine::StepPlan Engine::step_plan() const {
  const std::lock_guard lock(lock_);
  return {step_height_, arena_.limit()};
}

// Rounds that nothing is known of say nothing about plans.
void Engine::note_whether_it_fits() {
  const RoundKind kind = recorder_.round().kind;
  const bool is_any_known =
      std::any_of(book_->programs.begin(), book_->programs.end(), [this, kind](const Program& program) {
        return program.kind == kind && program.source == recorder_.round().source && !program.is_fiction();
      });
  for (Bytes* sum : {&round_planned_, &round_all_}) *sum += as_planned_.bytes - as_planned_before_;
  as_planned_before_ = as_planned_.bytes;
  const bool was_resting = backoff(kind).is_resting();
  Backoff::Outcome outcome{round_all_, round_planned_, {}, is_of_new_input(recorder_.round()), false};
  if (server_.tried_plan()) outcome.fitting = round_planned_;
  if (server_.is_on_trial()) {
    outcome.planned += server_.trial().planned;
    if (outcome.fitting) outcome.fitting = round_planned_ + server_.trial().fitting;
    outcome.began_with_another = server_.began_with_another();
  }
  // That memory ended says nothing of the plan.
  const bool is_told = !server_.lacked_memory() || server_.is_on_trial();
  if ((is_any_known || was_resting) && is_told && may_rest(recorder_.round())) backoff(kind).note(outcome);
  if (server_.is_on_trial() && server_.lacked_memory()) backoff(kind).forget_plans();
  if (!was_resting && backoff(kind).is_resting()) {
    EBBTIDE_INFO("rounds of kind %d do not repeat: they follow no plan for a while", static_cast<int>(kind));
  }
  EBBTIDE_DEBUG("round %u: %s of %s had a place in a plan%s", recorder_.round().serial, to_string(outcome.planned).c_str(),
                to_string(outcome.all).c_str(), server_.is_on_trial() ? ", on trial" : "");
  round_planned_ = round_all_ = Bytes{};
}

// Those with forms stay in the arena and follow their plans, whatever becomes of them: see Note [Gaps].
bool Engine::may_rest(const Round& round) { return round.kind != RoundKind::kOptimizer && !round.has_form(); }

bool Engine::is_of_new_input(const Round& round) const {
  return !round.extents.empty() && std::none_of(book_->programs.begin(), book_->programs.end(), [&round](const Program& program) {
    return program.kind == round.kind && std::find(program.inputs.begin(), program.inputs.end(), round.extents) != program.inputs.end();
  });
}

void Engine::begin_serving() {
  const Round& round = recorder_.round();
  server_.end();
  const bool is_free = may_rest(round);
  if (is_free && backoff(round.kind).is_resting()) return server_.begin_in_gaps();
  // An optimizer's first step creates its state, of the sizes that its later steps use for a moment.
  const bool is_first_step = round.kind == RoundKind::kOptimizer && optimizers_seen_.insert(round.source).second;
  if (options_.observe_only) return;
  if (is_first_step) return begin_first_step();
  const bool is_on_trial = is_free && backoff(round.kind).begin(is_of_new_input(round)) && has_room_for_trial();
  server_.begin(book_, recorder_, last_served_, is_on_trial);
  has_served_ = has_served_ || server_.is_following();
}

// What is still alive of the round before (logits, keys and values that a variable holds) may keep the arena from being given back.
// Then the state goes there: beside an idle arena it would be held on top.
void Engine::begin_first_step() {
  const Bytes idle = arena_.extent() - arena_.blocks().live_bytes();
  const bool is_much = idle >= kWorthFilling && idle.value >= arena_.extent().value / kIdlePart;
  if (is_much && arena_.range().grows_in_place()) server_.begin_in_idle_room();
}

// What a trial finds no gap for would stand beside an arena that cannot grow in place; and a plan that is not right needs
// less than gaps do where little is left. Asks the driver.
bool Engine::has_room_for_trial() const {
  if (!arena_.range().grows_in_place()) return false;
  return book_->height + Bytes{book_->height.value / kTrialPart} <= arena_.limit();
}

Bytes Engine::height_in_force() const {
  const bool all_serve = std::none_of(backoffs_.begin(), backoffs_.end(), [](const Backoff& backoff) {
    return backoff.is_idle();
  });
  const bool all_count = std::none_of(book_->programs.begin(), book_->programs.end(), [](const Program& program) { return program.is_fiction(); });
  if (all_serve && all_count) return book_->height;
  Bytes height;
  for (const Program& program : book_->programs) {
    const Backoff& of_kind = backoff(program.kind);
    if (!of_kind.is_idle() && !program.is_fiction()) height = std::max(height, program.height);
  }
  return height;
}

void Engine::adopt_latest() {
  std::shared_ptr<const ProgramBook> latest = worker_.published();
  if (latest == book_) return;
  if (!counters_.observed_peak_known && !plan_was_loaded_ && !options_.observe_only) {
    counters_.observed_peak_known = true;
    counters_.observed_peak_reserved = options_.upstream_caches ? arena_.range().peak_reserved() : live_.peak_held();
  }
  book_ = std::move(latest);
  recorder_.resolve(*book_, arena_.blocks());
  emit(Action::kPlan, Placement::kPlanned, nullptr, book_->height, home_);
}

void Engine::settle() noexcept {
  worker_.wait_idle(std::chrono::seconds(60));
  std::unique_lock lock(lock_);
  // A running round goes on with the book it began with; an empty one can take the new one.
  if (!recorder_.round().empty() || recorder_.is_prologue()) return;
  adopt_latest();
  begin_serving();
}

}  // namespace ebbtide
