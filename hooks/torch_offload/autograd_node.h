// What our nodes of autograd's graph have in common.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <vector>

#include "hooks/torch_offload/offload.hpp"

namespace ebbtide::offload {

// Whether a result of these tensors is to have a graph.
bool needs_graph(const Tensors& inputs);
// Puts `node`, whose inputs were these, behind `output`, which must have no graph yet. Undefined
// inputs have no edge.
at::Tensor behind(at::Tensor output, const std::shared_ptr<torch::autograd::Node>& node,
                  const Tensors& inputs);
// Throws std::runtime_error if a graph of the gradients is asked for (create_graph).
void refuse_second_derivatives(const char* what);
// Throws std::invalid_argument for a tensor that requires a gradient and was computed: pieces take
// gradients where they begin.
void check_leaves(const Tensors& parameters);

// Several tensors that a node saves for its backward: as autograd itself does, so that hooks see
// them and in-place changes are noticed.
class SavedTensors {
 public:
  void save(const Tensors& tensors);
  // Throws a c10::Error after release().
  Tensors unpack() const;
  void release();

 private:
  std::vector<torch::autograd::SavedVariable> saved_;
};

}  // namespace ebbtide::offload
