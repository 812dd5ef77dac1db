#include "hooks/torch_offload/layer_trace.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "hooks/ebbtide.h"

namespace ebbtide::offload {
namespace {

constexpr std::string_view kNowhere = "(anonymous namespace)::";

// A module's name is its class, mostly: layers of one class are told apart by their places.
std::string name_of(const State& state, const Tally& tally) {
  const auto has_its_name = [&](const auto& other) { return other->stats.name == tally.stats.name; };
  const bool is_alone = std::count_if(state.tallies().begin(), state.tallies().end(), has_its_name) == 1;
  std::string name = tally.stats.name;
  if (name.starts_with(kNowhere)) name.erase(0, kNowhere.size());
  return is_alone ? name : name + "." + std::to_string(tally.index);
}

}  // namespace

LayerTrace::LayerTrace(const State& state, Tally& tally)
    : tally_(tally), device_(state.device.is_cuda() ? state.device.index() : -1) {
  if (!tally.traced.has_asked) {
    tally.traced.has_asked = true;
    static_cast<void>(ebbtide_name_owner(name_of(state, tally).c_str(), &tally.traced.name));
  }
  if (tally.traced.name != 0) before_ = ebbtide_set_owner(tally.traced.name);
}

LayerTrace::~LayerTrace() {
  Tally::Traced& traced = tally_.traced;
  if (traced.name == 0) return;
  ebbtide_set_owner(before_);
  const LayerStats& now = tally_.stats;
  ebbtide_trace_layer(device_, traced.name, now.kept_bytes - traced.kept_bytes, now.swapped_bytes - traced.swapped_bytes,
                      now.recomputed_bytes - traced.recomputed_bytes);
  traced.kept_bytes = now.kept_bytes;
  traced.swapped_bytes = now.swapped_bytes;
  traced.recomputed_bytes = now.recomputed_bytes;
}

}  // namespace ebbtide::offload
