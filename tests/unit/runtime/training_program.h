// Synthetic training programs: the requests, frees and marks of a transformer's iterations.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "tests/unit/runtime/simulated_adaptor.h"

namespace ebbtide::simulation {

struct ModelShape {
  int layers = 12;
  std::int64_t hidden = 2048;
  std::int64_t ffn = 5632;
  std::int64_t heads = 0;  // > 0: attention weights are kept, which grow with the square of the tokens
  std::int64_t vocabulary = 32000;
  // Every layer's attention makes a mask of tokens x tokens, and a padded copy of it unless the tokens are a
  // multiple of 8; what it used last is kept for the backward, as torch's scaled_dot_product_attention does.
  bool masks = false;
  bool tells_input = false;  // a forward's mark says batch and length
};

// When gradients go: after the step, or while the next backward already begins.
enum class ZeroGrad : std::uint8_t { kAfterStep, kBeforeBackward, kNever };

// Replays training on one adaptor. Not thread-safe. Parameters are older than the first mark.
class TrainingProgram {
 public:
  TrainingProgram(SimulatedAdaptor& adaptor, ModelShape shape, std::uint64_t source = 1)
      : adaptor_(adaptor), shape_(shape), source_(source) {
    for (int layer = 0; layer < shape_.layers; ++layer) {
      parameters_.push_back(Bytes{4 * shape_.hidden * shape_.hidden * 2});
      parameters_.push_back(Bytes{3 * shape_.hidden * shape_.ffn * 2});
    }
    parameters_.push_back(Bytes{shape_.hidden * shape_.vocabulary * 2});
    for (const Bytes size : parameters_) adaptor_.allocate(size);
    gradients_.resize(parameters_.size());
  }

  // One micro-batch: forward, loss, backward.
  void train(std::int64_t tokens, ZeroGrad zero_grad = ZeroGrad::kNever) {
    const TensorId batch = adaptor_.allocate(Bytes{tokens * 8 * 16});
    mark(MarkKind::kForward, tokens);
    forward(tokens);
    if (zero_grad == ZeroGrad::kBeforeBackward) free_gradients();
    backward(tokens, -1);
    adaptor_.free(batch);
  }

  // An exception in the backward of `layer`: everything of this micro-batch goes at once.
  void train_and_fail(std::int64_t tokens, int layer) {
    mark(MarkKind::kForward);
    forward(tokens);
    backward(tokens, layer);
    for (auto& saved : saved_) free_all(saved);
    saved_.clear();
  }

  // The first step creates the optimizer's state; every step has temporaries.
  void step(ZeroGrad zero_grad) {
    mark(MarkKind::kOptimizer);
    for (const Bytes size : parameters_) {
      if (has_state_) break;
      adaptor_.allocate(size);
      adaptor_.allocate(size);
    }
    has_state_ = true;
    for (const Bytes size : parameters_) adaptor_.free(adaptor_.allocate(size));
    adaptor_.engine().mark(MarkKind::kOptimizerEnd, 0);
    if (zero_grad == ZeroGrad::kAfterStep) free_gradients();
  }

  // A pass without gradients; what it returns is kept by the caller.
  TensorId evaluate(std::int64_t tokens) {
    mark(MarkKind::kInference);
    TensorId stream = adaptor_.allocate(activation(tokens));
    for (int layer = 0; layer < shape_.layers; ++layer) {
      const TensorId qkv = adaptor_.allocate(Bytes{3 * activation(tokens).value});
      const TensorId wide = adaptor_.allocate(Bytes{tokens * shape_.ffn * 2});
      adaptor_.free(qkv);
      const TensorId next = adaptor_.allocate(activation(tokens));
      adaptor_.free(wide);
      adaptor_.free(std::exchange(stream, next));
    }
    const TensorId logits = adaptor_.allocate(Bytes{tokens * shape_.vocabulary * 2});
    adaptor_.free(stream);
    return logits;
  }

  // One whole iteration of `accumulate` micro-batches.
  void iterate(std::int64_t tokens, ZeroGrad zero_grad, int accumulate = 1) {
    for (int k = 0; k < accumulate; ++k) {
      train(tokens, k == 0 && zero_grad == ZeroGrad::kBeforeBackward ? zero_grad : ZeroGrad::kNever);
    }
    step(zero_grad);
  }

  // Activations that the last forward left, for frees from other threads.
  std::vector<TensorId> take_saved() {
    std::vector<TensorId> all;
    for (const auto& saved : saved_) all.insert(all.end(), saved.begin(), saved.end());
    saved_.clear();
    return all;
  }

  void mark(MarkKind kind, std::int64_t tokens = 0) {
    adaptor_.engine().settle();  // the same plans in every run, however slow the machine is
    const Extents input = shape_.tells_input && tokens > 0 ? Extents{1, tokens} : Extents{};
    adaptor_.engine().mark(kind, kind == MarkKind::kOptimizer ? source_ + 1000 : source_, input);
  }

  void forward(std::int64_t tokens) {
    for (int layer = 0; layer < shape_.layers; ++layer) {
      std::vector<TensorId> saved;
      saved.push_back(adaptor_.allocate(activation(tokens)));
      saved.push_back(adaptor_.allocate(Bytes{3 * activation(tokens).value}));
      if (shape_.heads > 0) saved.push_back(adaptor_.allocate(Bytes{shape_.heads * tokens * tokens * 2}));
      if (shape_.masks) saved.push_back(mask_of(tokens));
      const TensorId temporary = adaptor_.allocate(activation(tokens));
      saved.push_back(adaptor_.allocate(activation(tokens)));
      adaptor_.free(temporary);
      saved.push_back(adaptor_.allocate(Bytes{2 * tokens * shape_.ffn * 2}));
      adaptor_.free(adaptor_.allocate(Bytes{512}));  // too small to be planned
      saved_.push_back(std::move(saved));
    }
    saved_.push_back({adaptor_.allocate(Bytes{tokens * shape_.vocabulary * 2})});
  }

 private:
  TensorId mask_of(std::int64_t tokens) {
    const TensorId mask = adaptor_.allocate(Bytes{tokens * tokens * 2});
    if (tokens % 8 == 0) return mask;
    const TensorId padded = adaptor_.allocate(Bytes{tokens * (tokens + 8 - tokens % 8) * 2});
    adaptor_.free(mask);
    return padded;
  }

  Bytes activation(std::int64_t tokens) const { return {tokens * shape_.hidden * 2}; }

  void backward(std::int64_t tokens, int fail_at) {
    in_backward = true;
    const TensorId logits_gradient = adaptor_.allocate(Bytes{tokens * shape_.vocabulary * 2});
    free_all(saved_.back());
    saved_.pop_back();
    TensorId stream = adaptor_.allocate(activation(tokens));
    accumulate(parameters_.size() - 1);
    adaptor_.free(logits_gradient);
    for (int layer = shape_.layers - 1; layer >= 0 && layer != fail_at; --layer) {
      const TensorId wide = adaptor_.allocate(Bytes{2 * tokens * shape_.ffn * 2});
      accumulate(2 * static_cast<std::size_t>(layer) + 1);
      const TensorId next = adaptor_.allocate(activation(tokens));
      adaptor_.free(wide);
      free_all(saved_.back());
      saved_.pop_back();
      accumulate(2 * static_cast<std::size_t>(layer));
      adaptor_.free(std::exchange(stream, next));
    }
    adaptor_.free(stream);
    in_backward = false;
  }

  // A gradient is born, or added to the one that is there.
  void accumulate(std::size_t parameter) {
    const TensorId fresh = adaptor_.allocate(parameters_[parameter]);
    TensorId& gradient = gradients_[parameter];
    if (gradient == 0) {
      gradient = fresh;
    } else {
      adaptor_.free(fresh);
    }
  }

  void free_gradients() {
    for (TensorId& gradient : gradients_) {
      if (gradient != 0) adaptor_.free(std::exchange(gradient, 0));
    }
  }

  void free_all(std::vector<TensorId>& tensors) {
    for (const TensorId tensor : tensors) adaptor_.free(tensor);
    tensors.clear();
  }

  SimulatedAdaptor& adaptor_;
  const ModelShape shape_;
  const std::uint64_t source_;
  std::vector<Bytes> parameters_;
  std::vector<TensorId> gradients_;  // by parameter; 0: none
  std::vector<std::vector<TensorId>> saved_;
  bool has_state_ = false;
};

}  // namespace ebbtide::simulation
