// The shares that "auto" tries: what the device has room for, in whole pieces.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "hooks/torch_offload/auto_alpha.h"
#include "hooks/torch_offload/room.h"
#include "hooks/torch_offload/state.h"

namespace ebbtide::offload {

// Lowers the shares to those that the device has room for; none: it is not known.
void AutoAlpha::stay_within(std::optional<std::int64_t> room, const State& state) {
  if (!room) return;
  double moving = 0, staying = 0, kept = 0;
  const std::vector<double> shares = whole_pieces(1);
  for (const auto& tally : state.tallies()) {
    const LayerStats& stats = tally->stats;
    if (stats.calls == 0) continue;
    const auto calls = static_cast<double>(stats.calls);
    const double more = shares[tally->index] * rest_[tally->index];
    if (stats.swapped_bytes > 0) {
      moving = std::max(moving, more);
    } else {
      staying += more;
      kept += static_cast<double>(stats.kept_bytes) / calls;
    }
  }
  const auto& hbm = state.options.hbm;
  const double at_most = hbm ? std::max(0.0, static_cast<double>(*hbm) - kept) : std::numeric_limits<double>::infinity();
  const double part = device_part(static_cast<double>(*room), moving, staying, at_most);
  if (part >= 1) return;
  for (double& share : most_.of_layer) share = std::floor(part * share * kShareParts) / kShareParts;
  most_.limit = "device";
  is_tight_ = true;
}

// Whether there are larger shares to measure, that the device has room for beside those that it was thought to hold
// at most: see the Python of it. With a budget it is not asked.
bool AutoAlpha::raise(State& state) {
  const std::optional<std::int64_t> room = is_tight_ && !is_raised_ ? headroom(state.device, 1) : std::nullopt;
  if (!room || state.options.hbm) return false;
  const std::vector<double> before = whole_pieces(1);
  const std::vector<double> most = most_.of_layer;
  std::vector<double> more(most.size());
  for (std::size_t i = 0; i < most.size(); ++i) more[i] = (wanted_.of_layer[i] - most[i]) * rest_[i];
  double moving = 0, staying = std::accumulate(more.begin(), more.end(), 0.0);
  for (const std::size_t layer : leaving_) {
    moving = std::max(moving, more[layer]);
    staying -= more[layer];
  }
  const double part = device_part(static_cast<double>(*room), moving, std::max(0.0, staying));
  for (std::size_t i = 0; i < most.size(); ++i) {
    most_.of_layer[i] = std::floor((most[i] + part * (wanted_.of_layer[i] - most[i])) * kShareParts) / kShareParts;
  }
  const auto largest = [](const std::vector<double>& shares) { return *std::max_element(shares.begin(), shares.end()); };
  if (largest(most_.of_layer) <= largest(most) || whole_pieces(1) == before) {
    most_.of_layer = most;
    return false;
  }
  search_ = search_->scaled(largest(most) / largest(most_.of_layer));
  is_raised_ = true;
  most_.limit = most_.of_layer == wanted_.of_layer ? wanted_.limit : "device";
  // Parts are of something else from here on.
  begun_.erase(begun_.begin() + 1, begun_.end());
  plans_.clear();
  apply(state, 1);
  return true;
}

// So much of what the limits allow, in pieces of each layer: what a layer's share has beside them would
// be rounded, and a piece more than the link carries is waited for.
std::vector<double> AutoAlpha::whole_pieces(double part) const {
  std::vector<double> wanted;
  std::vector<std::size_t> pieces;
  for (const std::size_t layer : leaving_) {
    wanted.push_back(part * most_.of_layer[layer]);
    pieces.push_back(pieces_[layer]);
  }
  const std::vector<double> found = in_pieces(wanted, pieces, !is_tight_);
  // Of layers that stay as much stays as is swapped of others.
  const auto largest = std::max_element(found.begin(), found.end());
  std::vector<double> shares(most_.of_layer.size(), largest == found.end() ? 0 : *largest);
  for (std::size_t i = 0; i < leaving_.size(); ++i) shares[leaving_[i]] = found[i];
  return shares;
}

}  // namespace ebbtide::offload
