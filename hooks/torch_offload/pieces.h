// How large pieces are, and which of them are swapped: from bytes and the session's options.
#pragma once

#include <vector>

#include "hooks/torch_offload/state.h"

namespace ebbtide::offload {

// Spans of `piece` tokens that cover [0, tokens); the last may be shorter.
std::vector<Span> cut(std::int64_t tokens, std::int64_t piece);

// Of one call of a layer with the input x.
class LayerBudget {
 public:
  LayerBudget(const State& state, const Layer& layer, const Tally& tally, const at::Tensor& x);

  // What a piece holds while it runs may weigh as much as the layer's weights, or as half a
  // whole-length tensor.
  std::vector<Span> spans() const;
  // Whether the piece with this number is one of the share that is swapped: alpha (MEMO, arXiv
  // 2407.12117, 4.1), evenly among the others, so that the copies of one hide behind the work of those
  // before it.
  bool is_swapped(std::size_t piece) const;
  // Bytes that a token wants to save beside input and attention's output: measured, or estimated.
  double rest_per_token() const;
  // Whether this and all later layers save on the device: options.hbm says how much, or keep_last.
  bool stays() const;
  // Bytes that this call may swap beside what every layer must. The swapped layers from this one on
  // have yet to save their inputs and attention's outputs, and share what the host holds beyond
  // these.
  double rest_allowance() const;

 private:
  std::int64_t later() const;
  std::int64_t always() const;
  double estimate() const;

  const State& state_;
  const Layer& layer_;
  const Tally& tally_;
  const at::Tensor& x_;
};

// Tokens of a piece of the LM head with this weight (words x width): what a piece holds stays below
// the float32 sum of the head's gradient, which is there at the same time, or below a small share
// of the device. A wished number of tokens (0: none) is an upper bound.
std::int64_t head_piece(const at::Tensor& weight, std::int64_t wished);

}  // namespace ebbtide::offload
