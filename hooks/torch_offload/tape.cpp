#include "hooks/torch_offload/tape.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>

namespace ebbtide::offload {
namespace {

using torch::autograd::Edge;
using torch::autograd::FunctionPreHook;

// Where a tape's graph begins. Never runs: gradients are taken here.
class Source final : public torch::autograd::Node {
 public:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    return {gradients.size(), at::Tensor()};
  }
};

// See Note [Hooks of parameters].
class HooksSetAside {
 public:
  explicit HooksSetAside(const Tensors& parameters) : parameters_(parameters) {
    for (const auto& parameter : parameters_) {
      hooks_.push_back(std::exchange(torch::autograd::impl::hooks(parameter), {}));
    }
  }
  ~HooksSetAside() {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      torch::autograd::impl::hooks(parameters_[i]) = std::move(hooks_[i]);
    }
  }
  HooksSetAside(const HooksSetAside&) = delete;
  HooksSetAside& operator=(const HooksSetAside&) = delete;

 private:
  const Tensors& parameters_;
  std::vector<std::vector<std::unique_ptr<FunctionPreHook>>> hooks_;
};

}  // namespace

Tape Tape::record(const std::function<Tensors(const Tensors&)>& function, const Tensors& inputs,
                  Tensors* outputs) {
  const at::AutoGradMode with_gradients(true);
  Tape tape;
  Tensors sources;
  const auto source = std::make_shared<Source>();
  for (const auto& input : inputs) {
    at::Tensor alias = input.detach();
    const bool differentiable = torch::autograd::isDifferentiableType(alias.scalar_type());
    if (differentiable) torch::autograd::create_gradient_edge(alias, source);
    tape.inputs_.push_back(differentiable ? torch::autograd::impl::gradient_edge(alias) : Edge());
    sources.push_back(std::move(alias));
  }
  for (const auto& output : function(sources)) {
    tape.outputs_.push_back(output.requires_grad() ? torch::autograd::impl::gradient_edge(output)
                                                   : Edge());
    outputs->push_back(output.detach());
  }
  return tape;
}

Tape::Gradients Tape::gradients(const Tensors& grad_outputs, const Tensors& parameters) {
  Gradients found{Tensors(inputs_.size()), Tensors(parameters.size())};
  torch::autograd::edge_list roots, ends;
  Tensors gradients;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (!outputs_[i].is_valid() || !grad_outputs[i].defined()) continue;
    roots.push_back(std::move(outputs_[i]));
    gradients.push_back(grad_outputs[i]);
  }
  std::vector<at::Tensor*> places;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (!inputs_[i].is_valid()) continue;
    ends.push_back(std::move(inputs_[i]));
    places.push_back(&found.inputs[i]);
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    ends.push_back(torch::autograd::impl::gradient_edge(parameters[i]));
    places.push_back(&found.parameters[i]);
  }
  inputs_.clear();
  outputs_.clear();
  if (roots.empty()) return found;
  const HooksSetAside aside(parameters);
  Tensors taken = torch::autograd::Engine::get_default_engine().execute(
      roots, gradients, /*keep_graph=*/false, /*create_graph=*/false, /*accumulate_grad=*/false,
      ends);
  for (std::size_t i = 0; i < places.size(); ++i) *places[i] = std::move(taken[i]);
  return found;
}

}  // namespace ebbtide::offload
