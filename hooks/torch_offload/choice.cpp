#include "hooks/torch_offload/choice.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

namespace ebbtide::offload {
namespace {

constexpr double kWorth = 0.005;         // a gain below this share is not looked for
// Part of a step that may be waited for copies, as the engine counts it; streams stood still for up to 1.4 times that.
constexpr double kLate = 0.007;
constexpr double kRounding = 1 + 1e-12;  // a rounding error does not cost a part

int parts_of(double part) { return static_cast<int>(std::lround(part * kShareParts)); }

double whole_parts(double share) { return std::floor(share * kShareParts * kRounding); }

}  // namespace

Shares memo_shares(const std::vector<LayerCost>& layers, const Limits& limits) {
  LayerCost most;
  for (const LayerCost& layer : layers) {
    most.always = std::max(most.always, layer.always);
    most.rest = std::max(most.rest, layer.rest);
  }
  const auto count = static_cast<double>(layers.size());
  if (layers.empty() || most.rest <= 0) return {std::vector<double>(layers.size(), 0.0), ""};
  const double by_link = (limits.link - most.always) / most.rest;
  const double by_host = (limits.host / count - most.always) / most.rest;
  const double share = std::clamp(std::min(by_link, by_host), 0.0, 1.0);
  const char* limit = share >= 1 ? "" : by_link <= by_host ? "link" : "host";
  return {std::vector<double>(layers.size(), whole_parts(share) / kShareParts), limit};
}

Shares layer_shares(const std::vector<LayerCost>& layers, const Limits& limits) {
  double host = limits.host;
  for (const LayerCost& layer : layers) host -= layer.always;
  host = std::max(0.0, host);
  Shares found;
  for (const LayerCost& layer : layers) {
    const double room = std::min(std::max(0.0, limits.link - layer.always), host);
    const double parts = layer.rest <= 0 ? kShareParts : whole_parts(room / layer.rest);
    found.of_layer.push_back(std::min<double>(parts, kShareParts) / kShareParts);
    host -= found.of_layer.back() * layer.rest;
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (found.of_layer[i] >= 1) continue;
    const bool host_is_full = host < layers[i].rest / kShareParts;
    if (host_is_full || found.limit.empty()) found.limit = host_is_full ? "host" : "link";
    if (host_is_full) break;
  }
  return found;
}

double device_part(double room, double moving, double staying, double staying_at_most) {
  if (moving + staying <= 0) return 1;
  double part = room / (moving + staying);
  if (part * staying > staying_at_most) part = moving > 0 ? (room - staying_at_most) / moving : 1;
  return std::clamp(part, 0.0, 1.0);
}

std::vector<double> in_pieces(const std::vector<double>& shares, const std::vector<std::size_t>& pieces,
                              bool is_carried) {
  std::vector<double> found;
  double carried = 0;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    if (pieces[i] == 0) {
      found.push_back(shares[i]);
      continue;
    }
    const auto count = static_cast<double>(pieces[i]);
    const double wanted = shares[i] + carried;
    found.push_back(std::min(count, std::floor(wanted * count * kRounding)) / count);
    carried = is_carried ? wanted - found.back() : 0;
  }
  return found;
}

void AlphaSearch::note(double part, double seconds, double waited) {
  const int share = parts_of(part);
  tried_.insert(share);
  if (share < refused_) seconds_[share] = seconds;
  if (waited > kLate * seconds) late_.insert(share);
}

void AlphaSearch::refuse(double part) {
  const int share = parts_of(part);
  tried_.insert(share);
  refused_ = std::min(refused_, share);
  seconds_.erase(seconds_.lower_bound(refused_), seconds_.end());
}

AlphaSearch AlphaSearch::scaled(double ratio) const {
  AlphaSearch search;
  for (const auto& [share, seconds] : seconds_) {
    const double waited = late_.count(share) != 0 ? seconds : 0;
    search.note(std::floor(share * ratio) / kShareParts, seconds, waited);
  }
  return search;
}

bool AlphaSearch::is_bounded() const {
  const int largest = seconds_.empty() ? 0 : seconds_.rbegin()->first;
  return refused_ <= kShareParts && parts_of(best()) >= largest;
}

int AlphaSearch::fastest() const {
  const auto least = std::min_element(seconds_.begin(), seconds_.end(), [this](const auto& one, const auto& other) {
    return std::pair(!is_allowed(one.first), one.second) < std::pair(!is_allowed(other.first), other.second);
  });
  return least == seconds_.end() ? kShareParts : least->first;
}

bool AlphaSearch::is_late_beyond() const { return late_.upper_bound(parts_of(best())) != late_.end(); }

bool AlphaSearch::is_allowed(int share) const { return late_.count(share) == 0; }

double AlphaSearch::best() const {
  if (seconds_.empty()) {
    const int share = refused_ > kShareParts ? kShareParts : refused_ / 2;
    return static_cast<double>(share) / kShareParts;
  }
  int best = fastest();
  const double enough = seconds_.at(best) * (1 + kWorth);
  for (const auto& [share, seconds] : seconds_) {
    if (seconds <= enough && is_allowed(share) == is_allowed(fastest())) best = std::min(best, share);
  }
  return static_cast<double>(best) / kShareParts;
}

std::optional<double> AlphaSearch::following() const {
  for (const int end : {0, kShareParts}) {
    if (end < refused_ && seconds_.count(end) == 0) return static_cast<double>(end) / kShareParts;
  }
  if (seconds_.empty() || tried_.size() >= kMostProbes) return std::nullopt;
  const auto best = seconds_.find(fastest());
  std::pair<int, int> widest;
  const auto consider = [&](int low, int high) {
    const bool is_wider = high - low >= widest.second - widest.first;
    if (is_wider && high - low > 1 && is_worth_halving(low, high)) widest = {low, high};
  };
  if (best != seconds_.begin()) consider(std::prev(best)->first, best->first);
  if (std::next(best) != seconds_.end()) {
    consider(best->first, std::next(best)->first);
  } else if (refused_ <= kShareParts) {
    consider(best->first, refused_);
  }
  const auto [low, high] = widest;
  if (low == high) return std::nullopt;
  return static_cast<double>((low + high) / 2) / kShareParts;
}

// Whether a minimum between the two could still matter. The time is convex: it lies above the line
// through a point on one side of the two, and one of them. Without such a point it may fall as far
// as the rest of it did. Below a part that waits for too long it may be nearly as short as there.
bool AlphaSearch::is_worth_halving(int low, int high) const {
  const double least = seconds_.at(fastest());
  const auto at_low = seconds_.find(low), at_high = seconds_.find(high);  // a refused one is not there
  if (at_high != seconds_.end() && !is_allowed(high) && at_high->second < least * (1 - kWorth)) return true;
  double bound = -std::numeric_limits<double>::infinity();
  if (at_low != seconds_.begin()) {
    const auto before = std::prev(at_low);
    const double slope = (at_low->second - before->second) / (low - before->first);
    bound = std::max(bound, at_low->second + slope * (high - low));
  }
  if (at_high != seconds_.end() && std::next(at_high) != seconds_.end()) {
    const auto after = std::next(at_high);
    const double slope = (after->second - at_high->second) / (after->first - high);
    bound = std::max(bound, at_high->second - slope * (high - low));
  }
  return std::isinf(bound) || bound < least * (1 - kWorth);
}

}  // namespace ebbtide::offload
