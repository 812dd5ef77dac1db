// One recorded run of a part of a layer, and its backward.
//
// Note [Edges, not tensors]
// A graph that waits for backward must not hold its own inputs and outputs. So inputs are outputs
// of a node that does nothing, and both ends are kept as edges of the graph; autograd's engine
// takes those.
//
// Note [Hooks of parameters]
// Pieces run on the parameters themselves, and each piece's gradients are taken at their edges.
// Hooks that users put on a parameter would run there, once a piece; they are set aside meanwhile,
// and see one gradient, the sum, which the layer's own node returns.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <functional>
#include <optional>
#include <vector>

namespace ebbtide::offload {

using Tensors = std::vector<at::Tensor>;

// The graph from some inputs to some outputs.
class Tape {
 public:
  struct Gradients {
    Tensors inputs, parameters;  // undefined where there is none
  };

  // Runs `function` on aliases of `inputs` with gradients on, and leaves its outputs, without their
  // graph, in `outputs`.
  static Tape record(const std::function<Tensors(const Tensors&)>& function, const Tensors& inputs,
                     Tensors* outputs);

  // Gradients of the inputs and of `parameters` (leaves). The graph is used up. An undefined
  // gradient of an output is zero.
  Gradients gradients(const Tensors& grad_outputs, const Tensors& parameters);

 private:
  torch::autograd::edge_list inputs_, outputs_;
};

}  // namespace ebbtide::offload
