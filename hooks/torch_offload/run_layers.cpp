// Layers as nodes of autograd's graph.
#include <stdexcept>

#include "hooks/torch_offload/autograd_node.h"
#include "hooks/torch_offload/layer_record.h"
#include "hooks/torch_offload/layer_trace.h"

namespace ebbtide::offload {
namespace {

// Whether nobody but the running backward holds this gradient: then it may be overwritten.
bool is_ours_alone(const at::Tensor& tensor) {
  return tensor.use_count() == 1 && tensor.storage().use_count() == 1 && tensor.is_contiguous() &&
         tensor.storage().nbytes() == tensor.nbytes() && !tensor.requires_grad();
}

// Parameters are its inputs, so autograd accumulates their gradients, once: hooks see one gradient.
class LayerNode final : public torch::autograd::Node {
 public:
  explicit LayerNode(std::shared_ptr<LayerRecord> record) : record_(std::move(record)) {}

  Tensors apply(Tensors&& gradients) override {
    refuse_second_derivatives("an offloaded layer");
    // Goes when this ends, be it by an exception.
    const auto record = std::exchange(record_, nullptr);
    if (record == nullptr) {
      throw std::runtime_error(
          "ebbtide offload: backward through an offloaded layer a second time (retain_graph): its "
          "saved "
          "tensors are gone after the first. Add the losses and call backward once");
    }
    at::Tensor dy = std::move(gradients[0]);
    if (!dy.defined()) return Tensors(1 + record->trainable.size());
    const bool overwrites = is_ours_alone(dy);
    const LayerTrace trace(*record->state, *record->tally);
    LayerGradients found = run_backward(*record, std::move(dy), overwrites);
    Tensors all{std::move(found.x)};
    for (auto& gradient : found.parameters) all.push_back(std::move(gradient));
    return all;
  }

  void release_variables() override { record_.reset(); }
  std::string name() const override { return "EbbtideLayer"; }

 private:
  std::shared_ptr<LayerRecord> record_;
};

at::Tensor run_one(const std::shared_ptr<State>& state, const Layer& layer, const at::Tensor& x) {
  Tensors inputs{x};
  for (const auto& parameter : layer.parameters) {
    if (parameter.requires_grad()) inputs.push_back(parameter);
  }
  const bool trains = needs_graph(inputs);
  const std::size_t index = state->tally_of(layer)->index;
  // Before the record, which follows what is chosen.
  if (trains && index == 0 && state->chooser() != nullptr) state->chooser()->begin(*state, x.numel());
  const auto record = std::make_shared<LayerRecord>(state, layer, x, trains);
  if (!trains) return run_forward(*record, x);
  if (index > 0) record->previous = state->last;
  state->last = record;
  state->leaving().layer_ended();
  const LayerTrace trace(*state, *record->tally);
  const auto node = std::make_shared<LayerNode>(record);
  at::Tensor y = behind(run_forward(*record, x), node, inputs);
  record->tally->stats.calls += 1;
  record->tally->pieces = record->pieces.size();
  // After the last layer there is no time to come, except where half a layer's was enough.
  const bool is_last = index + 1 == state->layers();
  if (is_last && state->alpha_of(index) > 0) state->leaving().layer_ended();
  if (is_last && state->chooser() != nullptr) state->chooser()->end(*state);
  return y;
}

void check(const State& state, const Layer& layer, const at::Tensor& x) {
  if (x.dim() < 2 || x.size(1) == 0 || !at::isFloatingType(x.scalar_type())) {
    throw std::invalid_argument(
        "ebbtide offload: " + layer.name +
        ": its input must be batch x tokens x ..., floating, and not empty");
  }
  if (x.device() != state.device) {
    throw std::invalid_argument("ebbtide offload: " + layer.name + ": its input is on " +
                                x.device().str() + ", the session is for " + state.device.str());
  }
  check_leaves(layer.parameters);
}

}  // namespace

at::Tensor run_layers(Session& session, const std::vector<Layer>& layers, at::Tensor x) {
  const auto& state = session.shared_state();
  for (const auto& layer : layers)
    state->tally_of(layer);  // how many there are decides which are last
  for (const auto& layer : layers) {
    check(*state, layer, x);
    x = run_one(state, layer, x);
  }
  return x;
}

}  // namespace ebbtide::offload
