// LM head and loss, piece by piece: logits of all tokens never exist.
//
// MsT (arXiv 2407.15892) computes head and loss over mini-sequences. Here gradients are made in the
// backward pass only, where the upstream gradient is known (so nothing is wasted in evaluation, and
// scaled losses are right), each token belongs to exactly one piece, the last of which may be
// shorter, and weight and bias are inputs of the node: autograd accumulates into them once.
#include <ATen/Functions.h>

#include <stdexcept>
#include <utility>

#include "hooks/torch_offload/ambient.h"
#include "hooks/torch_offload/autograd_node.h"
#include "hooks/torch_offload/gradient_sums.h"
#include "hooks/torch_offload/options.h"
#include "hooks/torch_offload/pieces.h"
#include "hooks/torch_offload/tape.h"

namespace ebbtide::offload {
namespace {

struct Head {
  LossOptions options;
  std::int64_t piece = 0;  // tokens

  // The sum over these rows (tokens x width). At least float32.
  at::Tensor operator()(const at::Tensor& rows, const at::Tensor& labels, const at::Tensor& weight,
                        const at::Tensor& bias) const {
    at::Tensor logits = at::linear(rows, weight, bias);
    if (logits.scalar_type() != at::kDouble) logits = logits.to(at::kFloat);
    if (options.softcap > 0) logits = at::tanh(logits / options.softcap) * options.softcap;
    at::Tensor total = at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum,
                                              options.ignore_index, options.label_smoothing);
    if (options.z_loss > 0) {
      const at::Tensor squares = at::square(at::logsumexp(logits, -1));
      total = total + options.z_loss * (squares * labels.ne(options.ignore_index)).sum();
    }
    return total;
  }
};

class LossNode final : public torch::autograd::Node {
 public:
  // `tensors`: rows, labels, weight, bias.
  LossNode(Head head, const Tensors& tensors, at::Device device)
      : head_(std::move(head)), autocast_(device) {
    saved_.save(tensors);
    for (const auto& tensor : tensors) needs_.push_back(tensor.defined() && tensor.requires_grad());
  }

  Tensors apply(Tensors&& gradients) override {
    refuse_second_derivatives("a loss computed piece by piece");
    if (!gradients[0].defined()) return Tensors(4);
    const at::NoGradGuard no_grad;
    const AutocastAgain autocast(autocast_);
    const Tensors saved = saved_.unpack();
    const std::vector<Span> spans = cut(saved[0].size(0), head_.piece);
    at::Tensor drows = needs_[0] ? at::empty(saved[0].sizes(), saved[0].options()) : at::Tensor();
    Tensors wanted;
    for (const std::size_t place : {std::size_t{2}, std::size_t{3}}) {
      if (needs_[place]) wanted.push_back(saved[place].detach());
    }
    GradientSums sums(wanted, spans.size());
    for (const Span span : spans) {
      Tensors found = piece_gradients(saved, wanted, span, gradients[0]);
      if (needs_[0]) span.of(drows, 0).copy_(found.front());
      found.erase(found.begin());
      sums.add(std::move(found));
    }
    Tensors total = sums.take();
    Tensors all{drows, at::Tensor(), at::Tensor(), at::Tensor()};
    if (needs_[3]) all[3] = std::exchange(total.back(), at::Tensor());
    if (needs_[2]) all[2] = std::move(total.front());
    return all;
  }

  void release_variables() override { saved_.release(); }
  std::string name() const override { return "EbbtideLinearCrossEntropy"; }

 private:
  // Of the rows (undefined if they need none), then of `wanted`.
  Tensors piece_gradients(const Tensors& saved, const Tensors& wanted, Span span,
                          const at::Tensor& upstream) const {
    const at::Tensor rows = span.of(saved[0], 0).detach(), labels = span.of(saved[1], 0);
    Tensors inputs;
    if (needs_[0]) inputs.push_back(rows);
    inputs.insert(inputs.end(), wanted.begin(), wanted.end());
    const auto run = [&](const Tensors& sources) {
      auto next = sources.begin();
      const auto take = [&](bool needs, const at::Tensor& other) {
        return needs ? *next++ : other;
      };
      const at::Tensor x = take(needs_[0], rows);
      const at::Tensor weight = take(needs_[2], saved[2]);
      return Tensors{head_(x, labels, weight, take(needs_[3], saved[3]))};
    };
    Tensors outputs;
    Tensors found = Tape::record(run, inputs, &outputs).gradients({upstream}, {}).inputs;
    if (!needs_[0]) found.insert(found.begin(), at::Tensor());
    return found;
  }

  Head head_;
  Autocast autocast_;
  SavedTensors saved_;
  std::vector<bool> needs_;
};

void check_shapes(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& labels,
                  const at::Tensor& bias) {
  const auto refuse = [](const char* what) {
    throw std::invalid_argument(std::string("ebbtide offload: linear_cross_entropy: ") + what);
  };
  if (weight.dim() != 2 || weight.size(1) != rows.size(1)) {
    refuse("weight must be words x width, and hidden ... x width");
  }
  if (labels.numel() != rows.size(0)) refuse("there must be one label for each token of hidden");
  if (labels.scalar_type() != at::kLong) refuse("labels must be 64-bit integers");
  if (bias.defined() && (bias.dim() != 1 || bias.size(0) != weight.size(0))) {
    refuse("bias must have one element for each word");
  }
}

}  // namespace

at::Tensor linear_cross_entropy(Session& session, const at::Tensor& hidden,
                                const at::Tensor& weight, const at::Tensor& labels,
                                const LossOptions& options, const at::Tensor& bias) {
  check(options);
  const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
  const at::Tensor targets = labels.reshape({-1});
  check_shapes(rows, weight, targets, bias);
  const Head head{options, head_piece(weight, session.state().options.mini_sequence)};
  at::Tensor total;
  {
    const at::NoGradGuard no_grad;
    for (const Span span : cut(rows.size(0), head.piece)) {
      const at::Tensor loss = head(span.of(rows, 0), span.of(targets, 0), weight, bias);
      total = total.defined() ? total + loss : loss;
    }
    const bool is_double = rows.scalar_type() == at::kDouble;
    if (!total.defined())
      total = at::zeros({}, rows.options().dtype(is_double ? at::kDouble : at::kFloat));
  }
  session.state().head_calls += 1;
  const Tensors inputs{rows, at::Tensor(), weight, bias};
  if (needs_graph(inputs)) {
    const auto node =
        std::make_shared<LossNode>(head, Tensors{rows, targets, weight, bias}, rows.device());
    total = behind(total, node, inputs);
  }
  if (options.divisor) return total / *options.divisor;
  return total / targets.ne(options.ignore_index).sum();
}

}  // namespace ebbtide::offload
