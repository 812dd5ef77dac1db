#include "hooks/torch_offload/autograd_node.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <stdexcept>

namespace ebbtide::offload {

bool needs_graph(const Tensors& inputs) {
  return at::GradMode::is_enabled() &&
         std::any_of(inputs.begin(), inputs.end(),
                     [](const at::Tensor& one) { return one.defined() && one.requires_grad(); });
}

at::Tensor behind(at::Tensor output, const std::shared_ptr<torch::autograd::Node>& node,
                  const Tensors& inputs) {
  torch::autograd::edge_list edges;
  for (const auto& input : inputs) {
    edges.push_back(input.defined() ? torch::autograd::impl::gradient_edge(input)
                                    : torch::autograd::Edge());
  }
  node->set_next_edges(std::move(edges));
  torch::autograd::set_history(output, node);
  return output;
}

void refuse_second_derivatives(const char* what) {
  if (!at::GradMode::is_enabled()) return;
  throw std::runtime_error(
      std::string("ebbtide offload: create_graph: ") + what +
      " can be differentiated once; run it without offload for second derivatives");
}

void check_leaves(const Tensors& parameters) {
  for (const auto& parameter : parameters) {
    if (parameter.requires_grad() && !parameter.is_leaf()) {
      throw std::invalid_argument(
          "ebbtide offload: parameters: a computed tensor is among them; pass the leaves that it "
          "is "
          "computed from, and compute it within the function");
    }
  }
}

void SavedTensors::save(const Tensors& tensors) {
  for (const auto& tensor : tensors) saved_.emplace_back(tensor, /*is_output=*/false);
}

Tensors SavedTensors::unpack() const {
  Tensors tensors;
  for (const auto& saved : saved_) tensors.push_back(saved.unpack());
  return tensors;
}

void SavedTensors::release() {
  for (auto& saved : saved_) saved.reset_data();
}

}  // namespace ebbtide::offload
