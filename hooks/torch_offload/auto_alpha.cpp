#include "hooks/torch_offload/auto_alpha.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "hooks/ebbtide.h"
#include "hooks/torch_offload/room.h"
#include "hooks/torch_offload/state.h"

namespace ebbtide::offload {
namespace {

constexpr std::size_t kObserved = 2;  // the first step also measures what is loaded and compiled
constexpr std::size_t kPatience =
    12;  // steps that a share may take until two of one length are seen
constexpr std::size_t kMeasured = 2;
// Steps until the last round with a plan is one of the present share.
constexpr std::size_t kUntilPlanned = 2;

// Of the last training round; none: nothing plans addresses on this device.
std::optional<StepPlan> step_plan(at::Device device) {
  StepPlan plan;
  const ebbtide_status status = ebbtide_get_step_plan(device.is_cpu() ? -1 : device.index(),
                                                      &plan.height_bytes, &plan.budget_bytes);
  return status == EBBTIDE_OK ? std::optional(plan) : std::nullopt;
}

std::int64_t waited_ns(const State& state) {
  if (state.swap == nullptr) return 0;
  const ebbtide_swap_stats stats = state.swap->stats();
  return stats.exposed_out_ns + stats.exposed_in_ns;
}

}  // namespace

Moment::Moment(at::Device device) {
  if (device.is_cpu()) return;
  event_ = std::make_shared<c10::Event>(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  event_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

double Moment::seconds_after(const Moment& other) const {
  if (event_ != nullptr) return other.event_->elapsedTime(*event_) / 1e3;
  return std::chrono::duration<double>(host_ - other.host_).count();
}

void AutoAlpha::begin(State& state, std::int64_t elements) {
  if (is_settled_) return;
  note_waits(state);
  if (confirming_ > 0) {
    confirm(state);
  } else if (search_) {
    measure(state);
  } else if (begun_.size() >= kObserved && ended_ && ended_->is_known()) {
    choose(state);
  }
  if (!is_settled_) begun_.push_back({Moment(state.device), elements, part_});
}

void AutoAlpha::note_waits(const State& state) {
  const std::int64_t waited = waited_ns(state);
  for (Begun& begun : begun_) {
    if (!begun.waited_ns && begun.moment.is_known()) begun.waited_ns = waited;
  }
}

void AutoAlpha::end(const State& state) {
  if (!is_settled_ && !search_) ended_.emplace(state.device);
}

void AutoAlpha::choose(State& state) {
  std::vector<LayerCost> costs;
  for (const auto& tally : state.tallies()) {
    const LayerStats& stats = tally->stats;
    pieces_.push_back(tally->pieces);
    rest_.push_back(stats.calls == 0 ? 0 : static_cast<double>(stats.recomputed_bytes) / static_cast<double>(stats.calls));
    if (stats.calls == 0 || stats.swapped_bytes == 0) continue;
    const auto calls = static_cast<double>(stats.calls);
    costs.push_back({static_cast<double>(stats.swapped_bytes) / calls,
                     static_cast<double>(stats.recomputed_bytes) / calls});
    leaving_.push_back(tally->index);
  }
  if (state.swap == nullptr || costs.empty()) return settle(state, 1);
  const ebbtide_swap_stats stats = state.swap->stats();
  if (stats.copying_out_ns <= 0) return settle(state, 1);
  const double layer_seconds =
      ended_->seconds_after(begun_.back().moment) / static_cast<double>(state.layers());
  const double rate = static_cast<double>(stats.timed_out_bytes) /
                      (static_cast<double>(stats.copying_out_ns) / 1e9);
  const bool is_measured = rule_ == AlphaRule::kAuto;
  // Copies of the last layer that is swapped have the next one's time too, if that stays.
  const std::size_t behind = costs.size() + (costs.size() < state.layers() ? 1 : 0);
  const double seconds = layer_seconds * static_cast<double>(behind) / static_cast<double>(costs.size());
  const Limits limits{rate * (is_measured ? seconds : layer_seconds), static_cast<double>(stats.host_budget_bytes)};
  Shares found = is_measured ? layer_shares(costs, limits) : memo_shares(costs, limits);
  // Of layers that stay on the device as much stays as is swapped of others.
  const auto largest = std::max_element(found.of_layer.begin(), found.of_layer.end());
  most_ = {std::vector<double>(state.layers(), *largest), std::move(found.limit)};
  for (std::size_t i = 0; i < leaving_.size(); ++i) most_.of_layer[leaving_[i]] = found.of_layer[i];
  wanted_ = most_;
  stay_within(headroom(state.device, 1), state);
  const bool swaps = std::any_of(most_.of_layer.begin(), most_.of_layer.end(),
                                 [](double share) { return share > 0; });
  if (is_measured) search_.emplace();
  if (!swaps || !is_measured) return settle(state, 1);
  measure(state);
}

void AutoAlpha::measure(State& state) {
  std::vector<const Begun*> here;
  for (const Begun& begun : begun_) {
    if (begun.part == part_) here.push_back(&begun);
  }
  if (!std::all_of(here.begin(), here.end(),
                   [](const Begun* begun) { return begun->waited_ns.has_value(); })) {
    return;
  }
  std::vector<double> seconds;
  // The first step at a share also finds room for it.
  for (std::size_t i = 2; i < here.size(); ++i) {
    if (here[i - 1]->elements != begun_.front().elements) continue;
    seconds.push_back(here[i]->moment.seconds_after(here[i - 1]->moment));
  }
  if (seconds.size() < kMeasured) {
    if (here.size() > kPatience) settle(state, search_->best());
    return;
  }
  if (is_refused(state)) {
    search_->refuse(part_);
  } else {
    const auto waited = static_cast<double>(*here.back()->waited_ns - *here[1]->waited_ns);
    const auto steps = static_cast<double>(here.size() - 2);
    search_->note(part_, *std::min_element(seconds.begin(), seconds.end()), waited / steps / 1e9);
  }
  const std::optional<double> following = search_->following();
  if (following) {
    apply(state, *following);
  } else if (search_->best() < 1 || !raise(state)) {
    settle(state, search_->best());
  }
}

void AutoAlpha::settle(State& state, double part) {
  if (part < 1) most_.limit = search_->is_bounded() ? "device" : search_->is_late_beyond() ? "link" : "time";
  apply(state, part);
  begun_.clear();
  const auto planned = plans_.find(part_);
  if (planned != plans_.end()) plan_ = planned->second;
  is_settled_ = plan_ || !search_ || !step_plan(state.device);
  confirming_ = 1;
}

// The share stands once its steps' plan fits, or was waited for long enough.
void AutoAlpha::confirm(State& state) {
  if (confirming_++ <= kUntilPlanned) return;
  const bool refused = is_refused(state);
  const auto planned = plans_.find(part_);
  if (planned != plans_.end()) plan_ = planned->second;
  if (refused && state.alpha() > 0) {
    search_->refuse(part_);
    plan_.reset();
    settle(state, search_->best());
  } else {
    is_settled_ = plan_ || confirming_ > kPatience;
    if (is_settled_ && !plan_) plan_ = step_plan(state.device);
  }
}

bool AutoAlpha::is_refused(const State& state) {
  const std::optional<StepPlan> plan = step_plan(state.device);
  if (!plan || plan->height_bytes == 0) return false;
  plans_[part_] = *plan;
  return !plan->fits();
}

void AutoAlpha::apply(State& state, double part) {
  part_ = part;
  if (most_.of_layer.empty()) return;  // nothing was found to choose from
  state.set_shares(whole_pieces(part), part * *std::max_element(most_.of_layer.begin(), most_.of_layer.end()));
}

}  // namespace ebbtide::offload
