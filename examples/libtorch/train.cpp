// Trains a small byte-level transformer on a text file, on the GPU if there is one.
// Usage: train [file [steps]]. With EBBTIDE=1 in the environment its memory is planned.
#include <ATen/Functions.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>
#include <torch/optim/adamw.h>
#include <torch/utils.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#ifdef WITH_EBBTIDE
#include <ebbtide/ebbtide.hpp>
#else
// Null unless an adaptor is preloaded.
extern "C" __attribute__((weak)) int ebbtide_step(void);
#endif

namespace {

constexpr int kVocabulary = 256;
constexpr int kWidth = 128;
constexpr int kHeads = 4;
constexpr int kLayers = 3;
constexpr int kBatch = 16;
constexpr int kShortest = 64;
constexpr int kLongest = 160;

struct BlockImpl : torch::nn::Module {
  torch::nn::LayerNorm norm_attention{torch::nn::LayerNormOptions({kWidth})};
  torch::nn::LayerNorm norm_feed{torch::nn::LayerNormOptions({kWidth})};
  torch::nn::Linear qkv{kWidth, 3 * kWidth}, out{kWidth, kWidth};
  torch::nn::Linear up{kWidth, 4 * kWidth}, down{4 * kWidth, kWidth};

  BlockImpl() {
    register_module("norm_attention", norm_attention);
    register_module("norm_feed", norm_feed);
    register_module("qkv", qkv);
    register_module("out", out);
    register_module("up", up);
    register_module("down", down);
  }

  torch::Tensor attend(const torch::Tensor& x) {
    const auto batch = x.size(0), length = x.size(1);
    const auto split =
        qkv(x).view({batch, length, 3, kHeads, kWidth / kHeads}).permute({2, 0, 3, 1, 4});
    const auto heads =
        at::scaled_dot_product_attention(split[0], split[1], split[2], {}, 0.0, true);
    return out(heads.transpose(1, 2).reshape({batch, length, kWidth}));
  }

  torch::Tensor forward(torch::Tensor x) {
    x = x + attend(norm_attention(x));
    return x + down(at::gelu(up(norm_feed(x))));
  }
};
TORCH_MODULE(Block);

struct ModelImpl : torch::nn::Module {
  torch::nn::Embedding bytes{kVocabulary, kWidth}, positions{kLongest, kWidth};
  torch::nn::ModuleList blocks;
  torch::nn::Linear head{kWidth, kVocabulary};

  ModelImpl() {
    for (int i = 0; i < kLayers; ++i) blocks->push_back(Block());
    register_module("bytes", bytes);
    register_module("positions", positions);
    register_module("blocks", blocks);
    register_module("head", head);
  }

  torch::Tensor forward(const torch::Tensor& tokens) {
    auto x = bytes(tokens) + positions(at::arange(tokens.size(1), tokens.options()));
    for (const auto& block : *blocks) x = block->as<Block>()->forward(x);
    return head(x);
  }
};
TORCH_MODULE(Model);

// Sequences of one length, begun at random places of the text; the length differs from step to
// step.
torch::Tensor random_batch(const std::string& text, std::mt19937& random) {
  std::uniform_int_distribution<int> lengths(kShortest, kLongest);
  const int length = lengths(random);
  std::uniform_int_distribution<std::size_t> begins(
      0, text.size() - static_cast<std::size_t>(length) - 2);
  torch::Tensor tokens = at::empty({kBatch, length + 1}, at::kLong);
  auto at = tokens.accessor<std::int64_t, 2>();
  for (int row = 0; row < kBatch; ++row) {
    const std::size_t begin = begins(random);
    for (int i = 0; i <= length; ++i) {
      at[row][i] = static_cast<unsigned char>(text[begin + static_cast<std::size_t>(i)]);
    }
  }
  return tokens;
}

double train_step(Model& model, torch::optim::Optimizer& optimizer, const torch::Tensor& tokens) {
  optimizer.zero_grad();
  const auto length = tokens.size(1) - 1;
  const auto inputs = tokens.narrow(1, 0, length);
  const auto targets = tokens.narrow(1, 1, length).reshape({-1});
  const auto loss = at::cross_entropy_loss(model(inputs).reshape({-1, kVocabulary}), targets);
  loss.backward();
  optimizer.step();
  return loss.item<double>();
}

// An iteration begins here: all that Ebbtide has to be told.
void mark_step() {
#ifdef WITH_EBBTIDE
  ebbtide::step();
#else
  if (ebbtide_step != nullptr) ebbtide_step();
#endif
}

void train(const std::string& text, int steps) {
  torch::manual_seed(0);
  const torch::Device device(at::hasCUDA() ? at::kCUDA : at::kCPU);
  Model model;
  model->to(device);
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
  std::mt19937 random(1);
  for (int step = 0; step < steps; ++step) {
    mark_step();
    const torch::Tensor tokens = random_batch(text, random).to(device);
    std::printf("step %d length %d loss %.17g\n", step, static_cast<int>(tokens.size(1)) - 1,
                train_step(model, optimizer, tokens));
  }
#ifdef WITH_EBBTIDE
  std::fputs(ebbtide::report().c_str(), stdout);  // empty unless EBBTIDE is set
#endif
}

}  // namespace

int main(int argc, char** argv) {
  const char* path = argc > 1 ? argv[1] : "/usr/share/common-licenses/GPL-3";
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.size() < 2 * kLongest) {
    std::fprintf(stderr, "%s: not a text of at least %d bytes; usage: train [file [steps]]\n", path,
                 2 * kLongest);
    return 2;
  }
  train(text, argc > 2 ? std::atoi(argv[2]) : 30);
  return 0;
}
