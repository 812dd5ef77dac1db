// Row-wise functions in mini-sequences (MsT, arXiv 2407.15892): only the input is saved.
#include <stdexcept>

#include "hooks/torch_offload/ambient.h"
#include "hooks/torch_offload/autograd_node.h"
#include "hooks/torch_offload/gradient_sums.h"
#include "hooks/torch_offload/layer_record.h"
#include "hooks/torch_offload/pieces.h"

namespace ebbtide::offload {
namespace {

using Function = std::function<at::Tensor(const at::Tensor&)>;

class MiniSequenceNode final : public torch::autograd::Node {
 public:
  MiniSequenceNode(Function function, const Tensors& parameters, const at::Tensor& x,
                   std::int64_t piece)
      : function_(std::move(function)),
        parameters_(parameters),
        piece_(piece),
        autocast_(x.device()),
        state_(RandomStates(x.device()).now()) {
    saved_.save({x});
    for (const auto& parameter : parameters_) witnesses_.emplace_back(parameter, "a parameter");
  }

  Tensors apply(Tensors&& gradients) override {
    refuse_second_derivatives("a mini-sequence");
    if (!gradients[0].defined()) return Tensors(1 + parameters_.size());
    const at::Tensor x = saved_.unpack().front().detach();
    for (const auto& witness : witnesses_) witness.check();
    const at::NoGradGuard no_grad;
    const UndisturbedRandom undisturbed(x.device());
    const AutocastAgain autocast(autocast_);
    RandomStates(x.device()).set(state_);
    const auto run = [&](const Tensors& sources) { return Tensors{function_(sources[0])}; };
    const std::vector<Span> spans = cut(x.size(1), piece_);
    GradientSums sums(parameters_, spans.size());
    Rows dx(x.size(1));
    for (const Span span : spans) {
      Tensors outputs;
      auto found =
          Tape::record(run, {span.of(x)}, &outputs).gradients({span.of(gradients[0])}, parameters_);
      if (found.inputs[0].defined()) dx.put(span, found.inputs[0]);
      sums.add(std::move(found.parameters));
    }
    Tensors all{dx.take()};
    for (auto& sum : sums.take()) all.push_back(std::move(sum));
    return all;
  }

  void release_variables() override { saved_.release(); }
  std::string name() const override { return "EbbtideMiniSequence"; }

 private:
  Function function_;
  Tensors parameters_;  // that require gradients
  std::int64_t piece_;
  Autocast autocast_;
  at::Tensor state_;  // of random numbers, before the first piece
  SavedTensors saved_;
  std::vector<Witness> witnesses_;
};

}  // namespace

at::Tensor mini_sequence(Function function, const Tensors& parameters, const at::Tensor& x,
                         std::int64_t tokens) {
  if (tokens < 1) {
    throw std::invalid_argument("ebbtide offload: mini_sequence: tokens=" + std::to_string(tokens) +
                                ": allowed is a number from 1");
  }
  if (x.dim() < 2 || x.size(1) == 0) {
    throw std::invalid_argument(
        "ebbtide offload: mini_sequence: x must be batch x tokens x ..., and not empty");
  }
  check_leaves(parameters);
  Tensors trainable;
  for (const auto& parameter : parameters) {
    if (parameter.requires_grad()) trainable.push_back(parameter);
  }
  Tensors inputs{x};
  inputs.insert(inputs.end(), trainable.begin(), trainable.end());
  std::shared_ptr<MiniSequenceNode> node;
  if (needs_graph(inputs)) {
    node = std::make_shared<MiniSequenceNode>(function, trainable, x, tokens);
  }
  Rows y(x.size(1));
  {
    const at::NoGradGuard no_grad;
    for (const Span span : cut(x.size(1), tokens)) y.put(span, function(span.of(x.detach())));
  }
  return node == nullptr ? y.take() : behind(y.take(), node, inputs);
}

}  // namespace ebbtide::offload
