// Trains a small byte-level GPT on a text four times, as it is and offloaded with three values of
// alpha (and, with --alpha auto or memo, once more with the alpha that is chosen from its own steps), and
// prints losses and memory side by side. Only run_layers, mini_sequence and
// linear_cross_entropy differ.
#include <ATen/Functions.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>
#include <torch/optim/adamw.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ebbtide/offload.hpp>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "live_bytes.h"

namespace offload = ebbtide::offload;
using offload::Tensors;

namespace {

constexpr int kVocabulary = 256;  // bytes

struct Settings {
  std::string file = "/usr/share/common-licenses/GPL-3";
  std::string device = at::hasCUDA() ? "cuda" : "cpu";
  int steps = 10, length = 1024, batch = 2, width = 128, layers = 4, piece = 128;
  std::optional<offload::AlphaRule> rule;  // of one more training
  bool alone = false;      // only that one, where a device is too small for the others
  bool simulated = false;  // the device computes nothing: losses are not read
};

// before_attention, attention and after_attention are all that offload needs of a layer.
struct BlockImpl : torch::nn::Module {
  torch::nn::LayerNorm norm_attention, norm_feed;
  torch::nn::Linear qkv, out, up, down;
  std::int64_t heads;

  explicit BlockImpl(int width)
      : norm_attention(torch::nn::LayerNormOptions({width})),
        norm_feed(torch::nn::LayerNormOptions({width})),
        qkv(width, 3 * width),
        out(width, width),
        up(width, 4 * width),
        down(4 * width, width),
        heads(std::max(1, width / 64)) {
    register_module("norm_attention", norm_attention);
    register_module("norm_feed", norm_feed);
    register_module("qkv", qkv);
    register_module("out", out);
    register_module("up", up);
    register_module("down", down);
  }

  Tensors before_attention(const at::Tensor& x) {
    return qkv(norm_attention(x)).unflatten(-1, {3 * heads, -1}).chunk(3, 2);
  }

  at::Tensor attention(const Tensors& parts) {
    const auto found =
        at::scaled_dot_product_attention(parts[0].transpose(1, 2), parts[1].transpose(1, 2),
                                         parts[2].transpose(1, 2), {}, 0.0, true);
    return found.transpose(1, 2).flatten(2);
  }

  at::Tensor after_attention(const at::Tensor& x, const at::Tensor& attended) {
    const auto y = x + out(attended);
    return y + down(at::gelu(up(norm_feed(y))));
  }

  at::Tensor forward(const at::Tensor& x) {
    return after_attention(x, attention(before_attention(x)));
  }
};
TORCH_MODULE(Block);

struct GptImpl : torch::nn::Module {
  torch::nn::Embedding bytes, positions;
  torch::nn::ModuleList blocks;
  torch::nn::LayerNorm norm;
  torch::nn::Linear head;

  explicit GptImpl(const Settings& settings)
      : bytes(kVocabulary, settings.width),
        positions(settings.length, settings.width),
        norm(torch::nn::LayerNormOptions({settings.width})),
        head(torch::nn::LinearOptions(settings.width, kVocabulary).bias(false)) {
    for (int i = 0; i < settings.layers; ++i) blocks->push_back(Block(settings.width));
    register_module("bytes", bytes);
    register_module("positions", positions);
    register_module("blocks", blocks);
    register_module("norm", norm);
    register_module("head", head);
  }

  at::Tensor embed(const at::Tensor& tokens) {
    return bytes(tokens) + positions(at::arange(tokens.size(1), tokens.options()));
  }

  at::Tensor plain(const at::Tensor& tokens, const at::Tensor& labels) {
    auto x = embed(tokens);
    for (const auto& block : *blocks) x = block->as<Block>()->forward(x);
    const auto logits = head(norm(x)).flatten(0, 1);
    return at::cross_entropy_loss(logits.to(at::kFloat), labels.flatten());
  }

  at::Tensor offloaded(offload::Session& session, const at::Tensor& tokens,
                       const at::Tensor& labels, int piece) {
    auto x = offload::run_layers<BlockImpl>(session, *blocks, embed(tokens));
    x = offload::mini_sequence(norm.ptr(), x, piece);
    return offload::linear_cross_entropy(session, x, head->weight, labels);
  }
};
TORCH_MODULE(Gpt);

// Sequences of settings.length + 1 bytes, begun at random places of the text.
at::Tensor random_batch(const std::string& text, const Settings& settings, std::mt19937& random) {
  std::uniform_int_distribution<std::size_t> begins(
      0, text.size() - static_cast<std::size_t>(settings.length) - 1);
  at::Tensor tokens = at::empty({settings.batch, settings.length + 1}, at::kLong);
  auto rows = tokens.accessor<std::int64_t, 2>();
  for (int row = 0; row < settings.batch; ++row) {
    const std::size_t begin = begins(random);
    for (int i = 0; i <= settings.length; ++i) {
      rows[row][i] = static_cast<unsigned char>(text[begin + static_cast<std::size_t>(i)]);
    }
  }
  return tokens;
}

struct Run {
  std::string name;
  std::vector<double> losses;
  std::int64_t peak = 0;  // bytes of live tensors on the device
  double step_ms = 0;     // median
  offload::Stats stats;
  std::string report;
};

// How one training offloads: by an alpha that is given, or chosen.
struct Way {
  std::string name;
  double alpha = 0;
  offload::AlphaRule rule = offload::AlphaRule::kGiven;
};

// One training from the same start; without a way by LibTorch alone.
Run train(const std::string& text, const Settings& settings, const std::optional<Way>& way) {
  torch::manual_seed(0);
  const at::Device device(settings.device);
  Gpt model(settings);
  model->to(device, device.is_cuda() ? at::kBFloat16 : at::kFloat);
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
  std::optional<offload::Session> session;
  if (way) {
    offload::Options options;
    options.alpha = way->alpha;
    options.alpha_rule = way->rule;
    options.mini_sequence = settings.piece;
    session.emplace(device, options);
  }
  std::mt19937 random(1);
  std::vector<double> times;
  Run run;
  run.name = way ? way->name : "plain";
  const LiveBytes live(device);
  for (int step = 0; step < settings.steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor text_rows = random_batch(text, settings, random).to(device);
    const auto tokens = text_rows.narrow(1, 0, settings.length);
    const auto labels = text_rows.narrow(1, 1, settings.length);
    optimizer.zero_grad();
    const auto loss = session ? model->offloaded(*session, tokens, labels, settings.piece)
                              : model->plain(tokens, labels);
    loss.backward();
    optimizer.step();
    if (!settings.simulated) run.losses.push_back(loss.item<double>());
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count());
  }
  run.peak = live.peak();
  std::nth_element(times.begin(), times.begin() + settings.steps / 2, times.end());
  run.step_ms = times[static_cast<std::size_t>(settings.steps / 2)];
  if (session) run.stats = session->stats(), run.report = session->report();
  return run;
}

// One line of the table, a cell for each run.
template <typename Cell>
void print_row(const char* title, const std::vector<Run>& runs, Cell cell) {
  std::printf("%-26s", title);
  for (const Run& run : runs) std::printf("%14s", cell(run).c_str());
  std::printf("\n");
}

std::string format(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), pattern, value);
  return text;
}

// A step's bytes, summed over layers.
std::string per_step(const Run& run, std::int64_t offload::LayerStats::*bytes) {
  if (run.stats.layers.empty()) return "-";
  double sum = 0;
  for (const auto& layer : run.stats.layers) {
    sum += static_cast<double>(layer.*bytes) / static_cast<double>(layer.calls);
  }
  return format("%.1f MiB", sum / (1 << 20));
}

void print_table(const std::vector<Run>& runs, const Settings& settings) {
  print_row("", runs, [](const Run& run) { return run.name; });
  if (!settings.simulated) {
    print_row("loss of the first step", runs,
              [](const Run& run) { return format("%.6f", run.losses.front()); });
    print_row("loss of the last step", runs,
              [](const Run& run) { return format("%.6f", run.losses.back()); });
  }
  const auto plain = static_cast<double>(runs.front().peak);
  print_row("peak of live tensors", runs, [](const Run& run) {
    return format("%.1f MiB", static_cast<double>(run.peak) / (1 << 20));
  });
  if (!settings.alone) {
    print_row("  saved", runs, [&](const Run& run) {
      return format("%.1f %%", 100 * (1 - static_cast<double>(run.peak) / plain));
    });
  }
  using Layer = offload::LayerStats;
  print_row("kept a step", runs, [](const Run& run) { return per_step(run, &Layer::kept_bytes); });
  print_row("swapped a step", runs,
            [](const Run& run) { return per_step(run, &Layer::swapped_bytes); });
  print_row("recomputed a step", runs,
            [](const Run& run) { return per_step(run, &Layer::recomputed_bytes); });
  print_row("step (median)", runs, [](const Run& run) { return format("%.1f ms", run.step_ms); });
}

// Whether all values of alpha gave the same bits, and losses close to plain's (pieces change the
// shapes of matrix products, and so rounding).
bool check_losses(const std::vector<Run>& runs) {
  double furthest = 0;
  bool same = true;
  for (std::size_t way = 1; way < runs.size(); ++way) {
    same = same && runs[way].losses == runs[1].losses;
    for (std::size_t step = 0; step < runs[0].losses.size(); ++step) {
      const double plain = runs[0].losses[step];
      furthest = std::max(furthest, std::abs(runs[way].losses[step] - plain) / plain);
    }
  }
  std::printf("losses of all values of alpha: %s; furthest from plain: %.1e of it\n",
              same ? "the same bits" : "THEY DIFFER", furthest);
  return same && furthest < 0.01;
}

int usage(const std::string& problem) {
  std::fprintf(
      stderr,
      "train_gpt: %s\n"
      "usage: train_gpt [--file TEXT] [--device cpu|cuda] [--steps N] [--length TOKENS]\n"
      "                 [--batch N] [--width N] [--layers N] [--piece TOKENS]\n"
      "                 [--alpha auto|memo] [--alone] [--simulated]\n"
      "  --piece      tokens of a mini-sequence\n"
      "  --alpha      one more training, whose alpha is chosen from its steps: auto needs up to 28\n"
      "  --alone      only that one: for a device that is too small for the others\n"
      "  --simulated  the device computes nothing (ebbtide dryrun): losses are not read\n",
      problem.c_str());
  return 2;
}

// Empty, or what is wrong.
std::string parse(int argc, char** argv, Settings& settings) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--simulated" || name == "--alone") {
      (name == "--alone" ? settings.alone : settings.simulated) = true;
      continue;
    }
    if (i + 1 == argc) return name + ": unknown, or its value is missing";
    const std::string value = argv[++i];
    int* number = name == "--steps"    ? &settings.steps
                  : name == "--length" ? &settings.length
                  : name == "--batch"  ? &settings.batch
                  : name == "--width"  ? &settings.width
                  : name == "--layers" ? &settings.layers
                  : name == "--piece"  ? &settings.piece
                                       : nullptr;
    if (name == "--file") {
      settings.file = value;
    } else if (name == "--alpha" && (value == "auto" || value == "memo")) {
      settings.rule =
          value == "auto" ? offload::AlphaRule::kAuto : offload::AlphaRule::kMemo;
    } else if (name == "--device" && (value == "cpu" || value == "cuda")) {
      settings.device = value;
    } else if (number != nullptr && std::atoi(value.c_str()) > 0) {
      *number = std::atoi(value.c_str());
    } else {
      return name + " " + value + ": not a setting and its value";
    }
  }
  if (settings.alone && !settings.rule) return "--alone: needs --alpha auto or memo";
  return settings.width >= 64 && settings.width % 64 != 0 ? "--width: allowed are multiples of 64"
                                                          : "";
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  const std::string problem = parse(argc, argv, settings);
  if (!problem.empty()) return usage(problem);
  std::ifstream file(settings.file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.size() < static_cast<std::size_t>(settings.length) + 2) {
    return usage(settings.file + ": not a text of at least " + std::to_string(settings.length + 2) +
                 " bytes (--file, --length)");
  }
  LiveBytes::count_host_tensors();
  std::vector<Run> runs;
  std::vector<std::optional<Way>> ways{
      std::nullopt, Way{"alpha 0.0", 0}, Way{"alpha 0.5", 0.5}, Way{"alpha 1.0", 1}};
  if (settings.alone) ways.clear();
  if (settings.rule) ways.push_back(Way{"chosen alpha", 0, *settings.rule});
  for (const auto& way : ways) {
    runs.push_back(train(text, settings, way));
    std::printf("%s: done\n", runs.back().name.c_str());
    std::fflush(stdout);
  }
  std::printf("\n");
  print_table(runs, settings);
  std::printf("\n%s", (settings.rule ? runs.back() : runs[2]).report.c_str());
  return settings.simulated || settings.alone || check_losses(runs) ? 0 : 1;
}
