#include "hooks/torch_offload/pieces.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hooks/torch_offload/options.h"
#include "hooks/torch_offload/tensor_layout.h"

namespace ebbtide::offload {
namespace {

constexpr std::int64_t kLayerTile = 64;  // tokens: matrix products run best on multiples of it
constexpr std::int64_t kHeadTile = 256;
constexpr std::int64_t kLeastTokens = 8;
constexpr std::int64_t kDeviceShare =
    64;  // a piece of the head may always take this part of the device

}  // namespace

std::vector<Span> cut(std::int64_t tokens, std::int64_t piece) {
  std::vector<Span> spans;
  for (std::int64_t begin = 0; begin < tokens; begin += piece) {
    spans.push_back({begin, std::min(begin + piece, tokens)});
  }
  return spans;
}

LayerBudget::LayerBudget(const State& state, const Layer& layer, const Tally& tally,
                         const at::Tensor& x)
    : state_(state), layer_(layer), tally_(tally), x_(x) {}

std::vector<Span> LayerBudget::spans() const {
  const std::int64_t tokens = x_.size(1);
  if (state_.options.mini_sequence > 0) return cut(tokens, state_.options.mini_sequence);
  std::int64_t weights = 0;
  for (const auto& parameter : layer_.parameters) weights += bytes_of(parameter);
  const std::int64_t room = std::max(weights, bytes_of(x_) / 2);
  const auto piece =
      static_cast<std::int64_t>(static_cast<double>(room) / std::max(estimate(), 1.0));
  return cut(tokens, std::max(kLayerTile, piece / kLayerTile * kLayerTile));
}

bool LayerBudget::is_swapped(std::size_t piece) const {
  const auto swapped = [&](std::size_t pieces) {
    return std::ceil(state_.alpha_of(tally_.index) * static_cast<double>(pieces) - 0.5);
  };
  return swapped(piece + 1) > swapped(piece);
}

double LayerBudget::rest_per_token() const { return std::max(tally_.rest_per_token, estimate()); }

bool LayerBudget::stays() const {
  const Options& options = state_.options;
  if (!options.hbm) return later() <= options.keep_last;
  const double rest = state_.alpha_of(tally_.index) * rest_per_token() * static_cast<double>(x_.size(1));
  return static_cast<double>(later()) * (static_cast<double>(always()) + rest) <=
         static_cast<double>(*options.hbm);
}

double LayerBudget::rest_allowance() const {
  const std::int64_t layers = later() - state_.options.keep_last;
  if (state_.swap == nullptr || layers <= 0 || stays())
    return std::numeric_limits<double>::infinity();
  const ebbtide_swap_stats now = state_.swap->stats();
  const std::int64_t free =
      std::min(now.host_budget_bytes, now.pinned_limit_bytes) - now.live_bytes;
  const double share = static_cast<double>(free - layers * always());
  return std::max(0.0, share / static_cast<double>(layers));
}

// Layers from this one on.
std::int64_t LayerBudget::later() const {
  return static_cast<std::int64_t>(state_.layers() - tally_.index);
}

// Bytes that a layer saves whatever becomes of its pieces: its input, and attention's output.
std::int64_t LayerBudget::always() const {
  return (state_.options.recomputes_attention ? 1 : 2) * bytes_of(x_);
}

// The results of the layer's matrix products, each as activation, as gradient, and as a temporary.
double LayerBudget::estimate() const {
  std::int64_t rows = 0;
  for (const auto& parameter : layer_.parameters) {
    if (parameter.dim() > 1) rows += parameter.size(0);
  }
  return static_cast<double>(3 * x_.element_size() * rows * x_.size(0));
}

std::int64_t head_piece(const at::Tensor& weight, std::int64_t wished) {
  // Logits, their float32 form, log-softmax, its gradient, and the gradient of the logits.
  const std::int64_t per_token = weight.size(0) * (2 * weight.element_size() + 3 * 4);
  const std::int64_t budget =
      std::max(4 * weight.numel(), device_memory(weight.device()) / kDeviceShare);
  const std::int64_t most = std::max(kLeastTokens, budget / std::max<std::int64_t>(per_token, 1));
  if (wished > 0 && wished <= most) return wished;
  return most >= kHeadTile ? most / kHeadTile * kHeadTile : most / kLeastTokens * kLeastTokens;
}

}  // namespace ebbtide::offload
