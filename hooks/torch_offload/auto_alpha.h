// alpha chosen from what training steps show, under the budgets: Options::alpha_rule.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hooks/torch_offload/choice.h"
#include "hooks/torch_offload/offload.hpp"

namespace ebbtide::offload {

class State;

// A point in a device's time; for host tensors in the process's.
class Moment {
 public:
  explicit Moment(at::Device device);
  bool is_known() const { return event_ == nullptr || event_->query(); }
  // Requires: both are known.
  double seconds_after(const Moment& other) const;

 private:
  std::chrono::steady_clock::time_point host_ = std::chrono::steady_clock::now();
  std::shared_ptr<c10::Event> event_;  // null: the host's time counts
};

// Watches a session's training forwards and settles on shares: as python_shim/ebbtide/_offload/
// _auto_alpha.py. The closed form from two observed steps; with kAuto then whole steps at that
// share, at none, and between them, each until two of one length are known, the shorter of which
// counts. Where lengths vary from step to step the limits' share stands. Never waits for the
// device: what is not known yet is asked for at the next step. Each share's steps are asked for the
// plan of their addresses: one that the device cannot hold is refused, and a smaller one taken; see
// Note [Confirmed by the planner] there. Serialised by its owner.
class AutoAlpha {
 public:
  explicit AutoAlpha(AlphaRule rule) : rule_(rule) {}

  // A training forward begins in the first layer, whose input has so many elements; its last layer
  // has run.
  void begin(State& state, std::int64_t elements);
  void end(const State& state);
  bool is_settled() const { return is_settled_; }
  // What keeps alpha from being larger: "link", "host", "time", "device"; "": nothing, or not known
  // yet.
  const std::string& limit() const { return most_.limit; }
  // Of the share that was settled on; none: nothing plans addresses here.
  const std::optional<StepPlan>& plan() const { return plan_; }

 private:
  struct Begun {
    Moment moment;
    std::int64_t elements;
    double part;
    // For copies, by all steps, when this moment was known to be over: the host is ahead of the device, and knows of no
    // later waits.
    std::optional<std::int64_t> waited_ns = {};
  };
  void note_waits(const State& state);
  void choose(State& state);
  void stay_within(std::optional<std::int64_t> room, const State& state);
  void measure(State& state);
  bool raise(State& state);
  void apply(State& state, double part);
  std::vector<double> whole_pieces(double part) const;
  void settle(State& state, double part);
  void confirm(State& state);
  // Whether the steps at the present share have a plan that the device cannot hold.
  bool is_refused(const State& state);

  const AlphaRule rule_;
  std::vector<Begun> begun_;
  std::optional<Moment> ended_;
  Shares most_;      // as much as the limits allow
  double part_ = 0;  // of that, at present
  std::vector<std::size_t> pieces_;   // of each layer, in the observed steps
  std::vector<std::size_t> leaving_;  // the layers that are swapped; others stay on the device
  bool is_tight_ = false;  // the device has no room for a piece more than a layer's share
  Shares wanted_;               // as much as the link and the host allow
  std::vector<double> rest_;    // bytes of each layer that its share is of
  bool is_raised_ = false;      // the shares are those that there was found to be room for beside smaller ones
  std::optional<AlphaSearch> search_;
  std::map<double, StepPlan> plans_;  // of shares' steps, by part of most_
  std::optional<StepPlan> plan_;
  std::size_t confirming_ = 0;  // steps that the share has been waiting for its plan; 0: not settled on
  bool is_settled_ = false;     // nothing more is asked
};

}  // namespace ebbtide::offload
