// A small GPT whose layers offer their parts, for the tests of offload in C++.
#pragma once

#include <ATen/Functions.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>
#include <torch/utils.h>

#include <ebbtide/offload.hpp>
#include <functional>

namespace ebbtide::offload {

constexpr std::int64_t kWords = 61, kWidth = 32, kHeads = 2, kLongest = 256;

struct BlockImpl : torch::nn::Module {
  torch::nn::LayerNorm norm_attention{torch::nn::LayerNormOptions({kWidth})};
  torch::nn::LayerNorm norm_feed{torch::nn::LayerNormOptions({kWidth})};
  torch::nn::Linear qkv{kWidth, 3 * kWidth}, out{kWidth, kWidth};
  torch::nn::Linear up{kWidth, 4 * kWidth}, down{4 * kWidth, kWidth};
  at::Tensor positions;  // one row a token, so that a piece must know where it is
  double dropout = 0;
  int attentions = 0;                      // forwards
  std::function<void()> at_after = [] {};  // called in each after part

  BlockImpl() {
    register_module("norm_attention", norm_attention);
    register_module("norm_feed", norm_feed);
    register_module("qkv", qkv);
    register_module("out", out);
    register_module("up", up);
    register_module("down", down);
    positions = register_buffer("positions", at::randn({1, kLongest, kWidth}));
  }

  Tensors before_attention(const at::Tensor& x, Span tokens) {
    const auto rows = norm_attention(x + tokens.of(positions));
    return qkv(rows).view({x.size(0), x.size(1), 3 * kHeads, kWidth / kHeads}).chunk(3, 2);
  }

  at::Tensor attention(const Tensors& parts) {
    ++attentions;
    const auto heads =
        at::scaled_dot_product_attention(parts[0].transpose(1, 2), parts[1].transpose(1, 2),
                                         parts[2].transpose(1, 2), {}, 0.0, true);
    return heads.transpose(1, 2).flatten(2);
  }

  at::Tensor after_attention(const at::Tensor& x, const at::Tensor& attended) {
    at_after();
    const auto y = x + at::dropout(out(attended), dropout, dropout > 0);
    return y + down(at::gelu(up(norm_feed(y))));
  }

  at::Tensor forward(const at::Tensor& x) {
    return after_attention(x, attention(before_attention(x, {0, x.size(1)})));
  }
};
TORCH_MODULE(Block);

struct GptImpl : torch::nn::Module {
  torch::nn::Embedding words{kWords, kWidth};
  torch::nn::ModuleList blocks;
  torch::nn::Linear head{kWidth, kWords};

  explicit GptImpl(int layers) {
    for (int i = 0; i < layers; ++i) blocks->push_back(Block());
    register_module("words", words);
    register_module("blocks", blocks);
    register_module("head", head);
  }

  BlockImpl& block(std::size_t index) { return *blocks[index]->as<Block>(); }

  // The loss of the next token, by LibTorch alone.
  at::Tensor plain(const at::Tensor& tokens) {
    auto x = words(tokens);
    for (const auto& block : *blocks) x = block->as<Block>()->forward(x);
    const auto logits = head(x.narrow(1, 0, tokens.size(1) - 1)).reshape({-1, kWords});
    return at::cross_entropy_loss(logits, targets(tokens));
  }

  at::Tensor offloaded(Session& session, const at::Tensor& tokens) {
    const auto x = run_layers<BlockImpl>(session, *blocks, words(tokens));
    return linear_cross_entropy(session, x.narrow(1, 0, tokens.size(1) - 1), head->weight,
                                targets(tokens), {}, head->bias);
  }

  static at::Tensor targets(const at::Tensor& tokens) {
    return tokens.narrow(1, 1, tokens.size(1) - 1).reshape({-1});
  }
};
TORCH_MODULE(Gpt);

inline Gpt make_gpt(int layers, at::ScalarType type = at::kFloat, double dropout = 0) {
  torch::manual_seed(1);
  Gpt model(layers);
  model->to(type);
  for (int i = 0; i < layers; ++i) model->block(static_cast<std::size_t>(i)).dropout = dropout;
  return model;
}

inline at::Tensor some_tokens(std::int64_t batch, std::int64_t length, std::uint64_t seed = 2) {
  torch::manual_seed(seed);
  return at::randint(kWords, {batch, length}, at::kLong);
}

inline Tensors gradients_of(const torch::nn::Module& model) {
  Tensors gradients;
  for (const auto& parameter : model.parameters()) gradients.push_back(parameter.grad());
  return gradients;
}

inline bool same_bits(const Tensors& some, const Tensors& others) {
  if (some.size() != others.size()) return false;
  for (std::size_t i = 0; i < some.size(); ++i) {
    if (!at::equal(some[i], others[i])) return false;
  }
  return true;
}

// The largest difference, over the larger of 1 and the largest element.
inline double difference(const at::Tensor& some, const at::Tensor& other) {
  if (some.numel() == 0) return 0;
  const auto reference = other.to(at::kDouble);
  const double largest = reference.abs().max().item<double>();
  return (some.to(at::kDouble) - reference).abs().max().item<double>() / std::max(1.0, largest);
}

inline double difference(const Tensors& some, const Tensors& others) {
  double largest = some.size() == others.size() ? 0 : 1e9;
  for (std::size_t i = 0; i < std::min(some.size(), others.size()); ++i) {
    largest = std::max(largest, difference(some[i], others[i]));
  }
  return largest;
}

inline std::int64_t live_on_host(const Session& session) {
  return session.stats().host->live_bytes;
}

}  // namespace ebbtide::offload
