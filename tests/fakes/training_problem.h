// The buffers of one training iteration of a Llama-like model, made from its dimensions: what the
// planner meets in life, without a model. Deterministic.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/plan/problem.h"

namespace ebbtide::fakes {

struct TrainingShape {
  int layers = 32;
  std::int64_t hidden = 4096;
  std::int64_t ffn = 14336;
  std::int64_t vocabulary = 32000;
  std::int64_t tokens = 8192;
  bool checkpointing = false;  // each layer's forward runs again in its backward
  int optimizer_chunks = 16;   // temporaries of the optimizer step
};

// Walks through the iteration as a program would, one tick for each birth and each death.
class TrainingProblem {
 public:
  explicit TrainingProblem(const TrainingShape& shape) : shape_(shape) {}

  // Gradients are born in the backward, live through the optimizer step and wrap around: they die
  // where the next iteration's backward begins.
  Problem make() {
    std::vector<std::vector<Live>> kept(static_cast<std::size_t>(shape_.layers));
    std::vector<Live> inputs;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      inputs.push_back(born(activation(shape_.hidden)));
      std::vector<Live> saved = forward();
      if (shape_.checkpointing) {
        dies(saved);
      } else {
        kept[static_cast<std::size_t>(layer)] = std::move(saved);
      }
    }
    head();
    for (int layer = shape_.layers - 1; layer >= 0; --layer) {
      auto& saved = kept[static_cast<std::size_t>(layer)];
      if (shape_.checkpointing) saved = forward();
      backward(saved);
      dies(inputs.back());
      inputs.pop_back();
    }
    dies(stream_gradient_);
    gradient(shape_.vocabulary * shape_.hidden);
    optimizer();
    return finish();
  }

 private:
  struct Live {
    std::int64_t bytes;
    std::int64_t birth;
  };

  std::int64_t activation(std::int64_t width) const { return shape_.tokens * width * 2; }

  Live born(std::int64_t bytes) { return {(bytes + 511) / 512 * 512, tick_++}; }
  void dies(const Live& live) {
    problem_.buffers.push_back(
        {{live.bytes}, {Interval{{live.birth}, {tick_++}}}, Bytes{512}, std::nullopt});
  }
  void dies(std::vector<Live>& all) {
    for (const Live& live : all) dies(live);
    all.clear();
  }
  void transient(std::int64_t bytes) { dies(born(bytes)); }
  void gradient(std::int64_t elements) { gradients_.push_back(born(elements * 2)); }

  // A normalisation: two temporaries in 32 bits, and what the backward needs.
  void norm(std::vector<Live>& saved) {
    const Live wide = born(2 * activation(shape_.hidden));
    transient(2 * activation(shape_.hidden));
    transient(shape_.tokens * 4);
    saved.push_back(born(shape_.tokens * 4));
    const Live scaled = born(2 * activation(shape_.hidden));
    dies(wide);
    saved.push_back(born(activation(shape_.hidden)));
    dies(scaled);
    saved.push_back(born(activation(shape_.hidden)));
  }

  void rotary(std::vector<Live>& saved, std::int64_t width) {
    const Live half = born(activation(width) / 2);
    const Live turned = born(activation(width));
    dies(half);
    const Live cosine = born(activation(width));
    transient(activation(width));
    saved.push_back(born(activation(width)));
    dies(turned);
    dies(cosine);
  }

  std::vector<Live> forward() {
    std::vector<Live> saved;
    const std::int64_t h = shape_.hidden;
    norm(saved);
    const Live query = born(activation(h));
    const Live key = born(activation(h / 4));
    saved.push_back(born(activation(h / 4)));
    rotary(saved, h);
    rotary(saved, h / 4);
    dies(query);
    dies(key);
    saved.push_back(born(activation(h)));        // attention output
    saved.push_back(born(shape_.tokens * 128));  // its log-sum-exp
    transient(activation(h));
    saved.push_back(born(activation(h)));  // residual
    norm(saved);
    for (int i = 0; i < 4; ++i)
      saved.push_back(born(activation(shape_.ffn)));  // gate, up, products
    transient(activation(h));
    return saved;
  }

  void head() {
    const std::int64_t logits = activation(shape_.vocabulary);
    const Live half = born(logits);
    const Live full = born(2 * logits);
    const Live softmax = born(2 * logits);
    transient(shape_.tokens * 4);
    release_gradients_at_ = tick_++;
    const Live grad = born(2 * logits);
    dies(softmax);
    dies(full);
    transient(logits);
    dies(half);
    gradient(shape_.vocabulary * shape_.hidden);
    stream_gradient_ = born(activation(shape_.hidden));
    dies(grad);
  }

  // A matrix product's backward: the input's gradient, kept by the caller, and the weight's.
  Live product_backward(std::int64_t in, std::int64_t out) {
    transient(activation(in) / 64 + 512);
    const Live result = born(activation(in));
    gradient(in * out);
    return result;
  }

  void backward(std::vector<Live>& saved) {
    const std::int64_t h = shape_.hidden;
    const Live down = product_backward(shape_.ffn, h);
    const Live gate = born(activation(shape_.ffn));
    const Live up = born(activation(shape_.ffn));
    dies(down);
    release(saved, 4);
    const Live from_gate = product_backward(h, shape_.ffn);
    dies(gate);
    const Live from_up = product_backward(h, shape_.ffn);
    dies(up);
    transient(activation(h));
    dies(from_gate);
    replace_stream(from_up, saved);
    release(saved, 3);
    const Live output = product_backward(h, h);
    release(saved, 2);
    const Live query = born(activation(h));
    const Live key = born(activation(h / 4));
    const Live value = born(activation(h / 4));
    transient(2 * activation(h));
    dies(output);
    for (int i = 0; i < 6; ++i) transient(activation(i % 2 == 0 ? h : h / 4));
    const Live from_query = product_backward(h, h);
    const Live from_key = product_backward(h, h / 4);
    const Live from_value = product_backward(h, h / 4);
    dies(query);
    dies(key);
    dies(value);
    dies(from_key);
    dies(from_value);
    replace_stream(from_query, saved);
    dies(saved);
  }

  // A normalisation's backward: 32-bit temporaries, its weight's gradient, a new stream gradient.
  void replace_stream(const Live& incoming, std::vector<Live>& saved) {
    const Live wide = born(2 * activation(shape_.hidden));
    transient(2 * activation(shape_.hidden));
    transient(2 * activation(shape_.hidden));
    gradient(shape_.hidden);
    release(saved, 1);
    const Live next = born(activation(shape_.hidden));
    dies(wide);
    dies(incoming);
    dies(stream_gradient_);
    stream_gradient_ = next;
  }

  void release(std::vector<Live>& saved, int count) {
    for (int i = 0; i < count && !saved.empty(); ++i) {
      dies(saved.back());
      saved.pop_back();
    }
  }

  void optimizer() {
    const auto count = static_cast<std::size_t>(shape_.optimizer_chunks);
    for (std::size_t i = 0; i < count && !gradients_.empty(); ++i) {
      const std::int64_t bytes = gradients_[i * gradients_.size() / count].bytes;
      const Live first = born(bytes);
      transient(2 * bytes);
      dies(first);
    }
  }

  Problem finish() {
    const Tick period{tick_};
    for (const Live& live : gradients_) {
      problem_.buffers.push_back(
          wrapping({live.bytes}, {live.birth}, {release_gradients_at_}, period));
    }
    return std::move(problem_);
  }

  TrainingShape shape_;
  Problem problem_;
  std::vector<Live> gradients_;
  Live stream_gradient_{};
  std::int64_t release_gradients_at_ = 0;
  std::int64_t tick_ = 0;
};

inline Problem training_problem(const TrainingShape& shape = {}) {
  return TrainingProblem(shape).make();
}

}  // namespace ebbtide::fakes
