// Longer sequences in LibTorch programs: layers, MLPs, LM head and loss in mini-sequences, and for
// what autograd saves in them keep, swap or recompute. C++17; link ebbtide::torch_offload. See
// docs/offload.md.
//
//   ebbtide::offload::Options options;
//   options.alpha = 0.5;
//   ebbtide::offload::Session session(device, options);
//   x = ebbtide::offload::run_layers<BlockImpl>(session, *blocks, x);
//   loss = ebbtide::offload::linear_cross_entropy(session, x, head->weight, labels);
//   loss.backward();
//
// A layer is a module with three functions; tokens are dimension 1 of every tensor (batch x tokens
// x ...):
//   std::vector<at::Tensor> before_attention(x)     row-wise: what attention takes
//   at::Tensor attention(const std::vector<at::Tensor>& parts)     over the whole length
//   at::Tensor after_attention(x, out)              row-wise: the layer's output
// The row-wise ones may take a Span as last argument: which tokens x holds (positions, rotary
// tables).
//
// A session, like the model it serves, is used by one thread at a time (and by autograd's, in
// backward). Errors: std::invalid_argument for wrong arguments, std::runtime_error for what went
// wrong in a step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <ebbtide/ebbtide.h>

namespace ebbtide::offload {

using Tensors = std::vector<at::Tensor>;

// Who chooses alpha.
enum class AlphaRule {
  kGiven,  // Options::alpha
  // After two steps with 0, MEMO's closed form (arXiv 2407.12117, 4.1): as much as hides behind one
  // layer's forward and fits the host budget.
  kMemo,
  // From there whole steps are measured, at that share, at 0, and between them (three steps each, at most
  // six shares, only while lengths repeat), and the fastest stays. Layers may differ.
  kAuto,
};

struct Options {
  // Share of each layer's tokens whose activations are swapped, 0 to 1 (MEMO, arXiv
  // 2407.12117, 4.1); the others are recomputed. The layer's input and attention's output are
  // always saved.
  double alpha = 0;
  // Other than kGiven: alpha stays 0 here, and Stats::alpha says what was chosen.
  AlphaRule alpha_rule = AlphaRule::kGiven;
  // Tokens of a piece; 0: chosen from bytes.
  std::int64_t mini_sequence = 0;
  // Last layers whose saved tensors stay on the device: there is no time for them to return.
  std::int64_t keep_last = 1;
  // Device bytes for saved tensors: as many last layers stay as fit. Decides instead of keep_last.
  // None: EBBTIDE_HBM, if that is set.
  std::optional<std::int64_t> hbm;
  // Most bytes of pinned host memory; 0: nothing leaves the device. None: EBBTIDE_HOST, or three
  // quarters of what is available.
  std::optional<std::int64_t> host;
  // Attention's output is not saved; its forward runs again in backward. For lengths at which
  // neither memory holds it.
  bool recomputes_attention = false;
};

struct LossOptions {
  std::int64_t ignore_index = -100;
  double label_smoothing = 0;
  double z_loss = 0;   // weight of logsumexp^2 (PaLM, arXiv 2204.02311, section 5)
  double softcap = 0;  // logits become softcap * tanh(logits / softcap); 0: as they are (Gemma 2)
  // What the sum over tokens is divided by (all tokens of an accumulated batch); none: the labels
  // that are not ignored.
  std::optional<double> divisor;
};

// Tokens [begin, end) of a sequence.
struct Span {
  std::int64_t begin = 0, end = 0;
  std::int64_t tokens() const { return end - begin; }
  // These tokens of a whole-length tensor: a view.
  at::Tensor of(const at::Tensor& whole, std::int64_t dim = 1) const {
    return whole.narrow(dim, begin, tokens());
  }
};

// One layer, over all its training calls. Bytes are what these calls' saved tensors weighed.
struct LayerStats {
  std::string name;
  std::int64_t calls = 0, attention_forwards = 0;
  std::int64_t kept_bytes = 0;        // stayed on the device
  std::int64_t swapped_bytes = 0;     // went to the host
  std::int64_t recomputed_bytes = 0;  // made again in backward instead
};

// The session's host memory, and its copies.
struct HostStats {
  std::int64_t live_bytes = 0, peak_live_bytes = 0;  // of saved tensors
  std::int64_t pinned_bytes = 0, budget_bytes = 0;
  std::int64_t swapped_out_bytes = 0, swapped_in_bytes = 0;
  std::int64_t refusals = 0;                   // times there was no room
  std::int64_t hidden_ns = 0, exposed_ns = 0;  // copying behind work; work that waited for copies
};

// The address plan of an iteration: its height with all that the arena holds in it, and the most that
// the device could give the arena.
struct StepPlan {
  std::int64_t height_bytes = 0, budget_bytes = 0;
  bool fits() const { return height_bytes <= budget_bytes; }
};

struct Stats {
  std::vector<LayerStats> layers;  // in the order in which they were first run
  double alpha = 0;                // largest share of a layer at present
  // Why it is not larger: "link", "host", "time", "device"; "": it is given, or 1.
  std::string alpha_limit;
  // What kAuto confirmed its choice with; none: not settled yet, or nothing plans addresses.
  std::optional<StepPlan> plan;
  std::int64_t head_calls = 0;     // losses computed over pieces
  std::int64_t tagged_bytes = 0;   // given to SaveOnHost
  std::optional<HostStats> host;   // none: nothing goes to host memory
};

class State;  // internal

// One model's offload: its options, host memory and counts. Copies are the same session. What waits
// for backward keeps the host memory alive.
class EBBTIDE_API Session {
 public:
  // `device`: of the model, CPU or CUDA. Throws std::invalid_argument, with the option, its value
  // and what is allowed; std::runtime_error if autograd is not LibTorch's own (in a Python
  // process).
  explicit Session(at::Device device, const Options& options = {});

  Stats stats() const;
  // The same in a few lines of text, per call.
  std::string report() const;
  State& state() const { return *state_; }
  const std::shared_ptr<State>& shared_state() const { return state_; }

 private:
  std::shared_ptr<State> state_;
};

// One layer's three parts. `parameters`: all that the parts use; leaves. Each that requires a
// gradient gets it once per backward, summed over pieces in float32. `buffers`: other tensors that
// live on.
struct Layer {
  std::string name;
  std::shared_ptr<void> owner;  // tells layers apart, and keeps what the parts run on
  std::function<Tensors(const at::Tensor& x, Span tokens)> before_attention;
  std::function<at::Tensor(const Tensors& parts)> attention;
  std::function<at::Tensor(const at::Tensor& x, const at::Tensor& out, Span tokens)>
      after_attention;
  Tensors parameters, buffers;
};

// The layers' output, one after the other. In training the pieces' activations are kept, swapped or
// recomputed; without gradients the layers run in pieces, too, and save nothing. Backward may run
// once: a second one (retain_graph) and create_graph raise std::runtime_error.
EBBTIDE_API at::Tensor run_layers(Session& session, const std::vector<Layer>& layers, at::Tensor x);

// A module that offers the three functions.
template <typename Module>
Layer layer_of(std::shared_ptr<Module> module) {
  Layer layer;
  layer.name = module->name();
  layer.owner = module;
  layer.parameters = module->parameters();
  layer.buffers = module->buffers();
  Module* m = module.get();  // kept by `owner`, which every call's record holds
  layer.before_attention = [m](const at::Tensor& x, Span tokens) -> Tensors {
    if constexpr (std::is_invocable_v<decltype(&Module::before_attention), Module*,
                                      const at::Tensor&, Span>) {
      return m->before_attention(x, tokens);
    } else {
      return m->before_attention(x);
    }
  };
  layer.attention = [m](const Tensors& parts) { return m->attention(parts); };
  layer.after_attention = [m](const at::Tensor& x, const at::Tensor& out, Span tokens) {
    if constexpr (std::is_invocable_v<decltype(&Module::after_attention), Module*,
                                      const at::Tensor&, const at::Tensor&, Span>) {
      return m->after_attention(x, out, tokens);
    } else {
      return m->after_attention(x, out);
    }
  };
  return layer;
}

// The modules of a ModuleList (or another range of shared_ptr<torch::nn::Module>), each a `Module`.
template <typename Module, typename Range>
at::Tensor run_layers(Session& session, Range& modules, at::Tensor x) {
  std::vector<Layer> layers;
  for (const auto& module : modules) {
    layers.push_back(layer_of(std::dynamic_pointer_cast<Module>(module)));
  }
  return run_layers(session, layers, std::move(x));
}

// One layer. The session learns in the first step how many there are; until then none counts as
// last.
template <typename Module>
at::Tensor run_layer(Session& session, const std::shared_ptr<Module>& module, at::Tensor x) {
  return run_layers(session, {layer_of(module)}, std::move(x));
}

// Cross entropy of linear(hidden, weight, bias) and labels, piece by piece, forward and backward:
// logits of all tokens never exist. hidden: ... x width; weight: words x width; labels: one per
// token, as they are (not shifted); bias: words, or undefined. A scalar: the mean over labels that
// are not ignored, as at::cross_entropy_loss. Gradients are made in backward alone and scale with
// the upstream gradient.
EBBTIDE_API at::Tensor linear_cross_entropy(Session& session, const at::Tensor& hidden,
                                            const at::Tensor& weight, const at::Tensor& labels,
                                            const LossOptions& options = {},
                                            const at::Tensor& bias = {});

// `function`, row-wise, over `tokens` tokens of x (dimension 1) at a time; only x is saved, and
// backward runs each piece again (MsT, arXiv 2407.15892). `parameters`: all that it uses; leaves.
EBBTIDE_API at::Tensor mini_sequence(std::function<at::Tensor(const at::Tensor&)> function,
                                     const Tensors& parameters, const at::Tensor& x,
                                     std::int64_t tokens);

// The same for a module with forward(x).
template <typename Module>
at::Tensor mini_sequence(const std::shared_ptr<Module>& module, const at::Tensor& x,
                         std::int64_t tokens) {
  return mini_sequence([module](const at::Tensor& piece) { return module->forward(piece); },
                       module->parameters(), x, tokens);
}

// While it lives, what autograd saves in this thread is noted; when it ends, that starts for host
// memory, and has left the device when the next scope or layer ends. Trainable parameters stay, and
// tensors of less than 4 KiB. Of scopes inside of each other the innermost counts. Left by an
// exception it swaps nothing.
class EBBTIDE_API SaveOnHost {
 public:
  explicit SaveOnHost(Session& session);
  ~SaveOnHost();
  SaveOnHost(const SaveOnHost&) = delete;
  SaveOnHost& operator=(const SaveOnHost&) = delete;

 private:
  struct Scope;
  std::unique_ptr<Scope> scope_;
};

}  // namespace ebbtide::offload
