// The session: what it shares, its numbers, and SaveOnHost.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "hooks/torch_offload/host_memory.h"
#include "hooks/torch_offload/options.h"
#include "hooks/torch_offload/recorder.h"
#include "hooks/torch_offload/saved_hooks.h"
#include "hooks/torch_offload/state.h"

namespace ebbtide::offload {
namespace {

std::shared_ptr<SwapStore> open_swap(at::Device device, const Options& options) {
  if (options.host == 0) return nullptr;
  return std::make_shared<SwapStore>(device, options.host ? *options.host : default_host_budget());
}

at::Device with_index(at::Device device) {
  return device.is_cuda() && !device.has_index() ? at::Device(at::kCUDA, 0) : device;
}

}  // namespace

State::State(at::Device of, const Options& wanted)
    : device(with_index(of)),
      options(wanted),
      swap(open_swap(device, options)),
      kept(std::make_shared<KeepStore>()),
      chooser_(options.alpha_rule == AlphaRule::kGiven
                   ? nullptr
                   : std::make_unique<AutoAlpha>(options.alpha_rule)) {}

std::shared_ptr<Tally> State::tally_of(const Layer& layer) {
  for (const auto& tally : tallies_) {
    if (tally->owner.lock() == layer.owner) return tally;
  }
  auto tally = std::make_shared<Tally>();
  tally->index = tallies_.size();
  tally->stats.name = layer.name;
  tally->owner = layer.owner;
  tallies_.push_back(tally);
  return tally;
}

SavedHandles TallyingStore::save_all(at::TensorList tensors) {
  auto saved = store_.save_all(tensors);
  for (const auto& one : saved) {
    stats_.swapped_bytes += one->swapped_bytes();
    stats_.kept_bytes += one->size_bytes() - one->swapped_bytes();
  }
  return saved;
}

Session::Session(at::Device device, const Options& options) {
  const Options wanted = with_environment(options);
  check(wanted, device);
  if (has_foreign_engine()) {
    throw std::runtime_error(
        "ebbtide offload: this process's autograd is not LibTorch's own; in Python programs use "
        "ebbtide.offload(model)");
  }
  install_engine();
  state_ = std::make_shared<State>(device, wanted);
}

Stats Session::stats() const {
  Stats stats;
  for (const auto& tally : state_->tallies()) stats.layers.push_back(tally->stats);
  stats.alpha = state_->alpha();
  if (state_->chooser() != nullptr) {
    stats.alpha_limit = state_->chooser()->limit();
    stats.plan = state_->chooser()->plan();
  }
  stats.head_calls = state_->head_calls;
  stats.tagged_bytes = state_->tagged_bytes;
  if (state_->swap == nullptr) return stats;
  const ebbtide_swap_stats from = state_->swap->stats();
  HostStats host;
  host.live_bytes = from.live_bytes;
  host.peak_live_bytes = from.peak_live_bytes;
  host.pinned_bytes = from.pinned_bytes;
  host.budget_bytes = from.host_budget_bytes;
  host.swapped_out_bytes = from.swapped_out_bytes;
  host.swapped_in_bytes = from.swapped_in_bytes;
  host.refusals = from.refusals;
  host.exposed_ns = from.exposed_out_ns + from.exposed_in_ns;
  host.hidden_ns = from.copying_out_ns + from.copying_in_ns - host.exposed_ns;
  stats.host = host;
  return stats;
}

struct SaveOnHost::Scope {
  explicit Scope(std::shared_ptr<State> of) : state(std::move(of)) {}
  std::shared_ptr<State> state;
  Recorder recorder;
  HookScope hooks{&recorder};
  int exceptions = std::uncaught_exceptions();  // under way when the scope began
};

SaveOnHost::SaveOnHost(Session& session)
    : scope_(std::make_unique<Scope>(session.shared_state())) {}

SaveOnHost::~SaveOnHost() {
  if (std::uncaught_exceptions() > scope_->exceptions) return;
  try {
    // One by one: a scope may be a whole model, whose tensors must not all return with the first.
    const auto saved = scope_->recorder.hand_over(scope_->state->leaving(), {}, /*together=*/false);
    for (const auto& one : saved) scope_->state->tagged_bytes += one->size_bytes();
    scope_->state->leaving().layer_ended();
  } catch (const std::exception& error) {  // what was not handed over stays where it is
    std::fprintf(stderr, "ebbtide warning %s; saved tensors stay on the device\n", error.what());
  }
}

}  // namespace ebbtide::offload
