// A small training step in integers, every kernel queued on a stream of a fake device, what is
// saved swapped or kept: its result does not depend on when copies run, or the swap is wrong.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <optional>
#include <ostream>
#include <utility>
#include <vector>

#include "swap/swap.h"
#include "tests/fakes/fake_copy_device.h"

namespace ebbtide::fakes {

// One training program; prints as source, so that a failing one can be pasted back.
struct Schedule {
  unsigned seed = 1;  // of the order in which streams go on
  int layers = 3;
  int pieces = 2;
  int swapped_pieces = 1;  // MEMO's alpha = swapped_pieces / pieces; the others are recomputed
  int in_flight = 2;       // layers whose tensors may be on their way out: MEMO's two buffers
  int prefetch = 1;        // layers that are asked for before their backward
  int forwards = 1;        // before the first backward
  int iterations = 2;
  int speed = 4;          // how soon queued work runs: 0 is not before the end
  bool abandons = false;  // one more forward without a backward
  bool lets_go_together = false;  // one wait for a layer, or one for each of its tensors
  std::int64_t host_bytes = std::int64_t{1} << 20;
  bool ignores_waits = false;

  friend std::ostream& operator<<(std::ostream& out, const Schedule& s) {
    return out << "{.seed = " << s.seed << ", .layers = " << s.layers << ", .pieces = " << s.pieces
               << ", .swapped_pieces = " << s.swapped_pieces << ", .in_flight = " << s.in_flight
               << ", .prefetch = " << s.prefetch << ", .forwards = " << s.forwards
               << ", .iterations = " << s.iterations << ", .speed = " << s.speed
               << ", .abandons = " << s.abandons << ", .lets_go_together = " << s.lets_go_together
               << ", .host_bytes = " << s.host_bytes << "}";
  }
};

// Device memory as a caching allocator serves it: what was freed last is handed out first, at once,
// because stream order protects it. Never moves.
class FakeDeviceMemory {
 public:
  static constexpr int kWords = 24;  // of a tensor
  using Tensor = std::uint32_t*;

  FakeDeviceMemory() : words_(std::size_t{kTensors} * kWords) {
    for (int i = kTensors; i-- > 0;) free_.push_back(&words_[static_cast<std::size_t>(i) * kWords]);
  }
  Tensor allocate() {
    if (free_.empty()) throw std::bad_alloc();
    Tensor tensor = free_.back();
    free_.pop_back();
    return tensor;
  }
  void free(Tensor tensor) { free_.push_back(tensor); }
  int live() const { return kTensors - static_cast<int>(free_.size()); }

 private:
  static constexpr int kTensors = 512;
  std::vector<std::uint32_t> words_;
  std::vector<Tensor> free_;
};

class FakeTraining {
 public:
  // On the streams of `device`, which belongs to `swap`; null: kernels run in the caller at once,
  // as they do for host tensors.
  FakeTraining(const Schedule& schedule, Swap& swap, FakeCopyDevice* device)
      : schedule_(schedule), device_(device), swap_(swap) {
    gradients_.resize(static_cast<std::size_t>(schedule.layers));
    result_.reserve(static_cast<std::size_t>(schedule.iterations * schedule.forwards * kWords));
  }

  // Everything computed: the gradient of each input and of each layer's weight.
  std::vector<std::uint32_t> run() {
    for (int i = 0; i < schedule_.iterations; ++i) iterate(static_cast<std::uint32_t>(i));
    if (device_ != nullptr) device_->finish();
    EXPECT_EQ(memory_.live(), 0) << "device memory leaks";
    EXPECT_EQ(swap_.stats().live, Bytes{0}) << "host memory leaks";
    EXPECT_EQ(swap_.stats().host_waits, 0) << "the host waited";
    EXPECT_TRUE(swap_.is_valid());
    result_.insert(result_.end(), gradients_.begin(), gradients_.end());
    return result_;
  }

  // `run` on a fake device of its own.
  static std::vector<std::uint32_t> run_on_fake(const Schedule& schedule) {
    auto device = std::make_unique<FakeCopyDevice>(
        FakeCopyDevice::Options{.seed = schedule.seed,
                                .most_steps_per_call = schedule.speed,
                                .ignores_waits = schedule.ignores_waits});
    FakeCopyDevice* const fake = device.get();
    const auto swap = Swap::open(std::move(device), {.host_budget = Bytes{schedule.host_bytes}});
    return FakeTraining(schedule, *swap.value(), fake).run();
  }

  // The same without a swap, a device or an order: one value after the other.
  static std::vector<std::uint32_t> expected(const Schedule& schedule);

 private:
  using Tensor = FakeDeviceMemory::Tensor;
  static constexpr int kWords = FakeDeviceMemory::kWords;
  static constexpr Bytes kTensorBytes{kWords * 4};

  struct Saved {
    std::optional<Ticket> ticket;  // absent: kept on the device
    Tensor source = nullptr;       // until it is let go
    Tensor landed = nullptr;
    bool is_awaited = true;
  };
  struct Layer {
    Saved x, out;
    std::vector<Saved> rest;  // of the swapped pieces
  };
  using Graph = std::vector<Layer>;

  static std::uint32_t mix(std::uint32_t a, std::uint32_t b) {
    return (a ^ (b * 2654435761U)) * 40503U + b;
  }
  static void attend(const std::uint32_t* x, std::uint32_t* out) {
    std::uint32_t state = 1;
    for (int i = 0; i < kWords; ++i) out[i] = state = mix(state, x[i]);
  }
  int begin_of(int piece) const { return kWords * piece / schedule_.pieces; }

  template <typename Kernel>
  void launch(Kernel kernel) {
    if (device_ == nullptr) return kernel();
    device_->launch(kCompute, kernel);
  }

  void iterate(std::uint32_t number) {
    std::deque<Graph> graphs;
    for (int i = 0; i < schedule_.forwards; ++i)
      graphs.push_back(forward(number * 8 + static_cast<std::uint32_t>(i)));
    for (std::uint32_t i = 0; !graphs.empty(); graphs.pop_front()) backward(graphs.front(), ++i);
    if (!schedule_.abandons) return;
    Graph abandoned = forward(number * 8 + 7);
    prefetch(abandoned.back());
    for (Layer& layer : abandoned) release(layer);
  }

  Graph forward(std::uint32_t input) {
    Graph graph(static_cast<std::size_t>(schedule_.layers));
    Tensor x = memory_.allocate();
    launch([x, input] {
      for (int i = 0; i < kWords; ++i) x[i] = mix(input, static_cast<std::uint32_t>(i));
    });
    for (std::size_t i = 0; i < graph.size(); ++i) {
      if (i >= static_cast<std::size_t>(schedule_.in_flight)) {
        let_go(graph[i - static_cast<std::size_t>(schedule_.in_flight)]);
      }
      x = forward_layer(graph[i], x);
    }
    launch([x] { std::memset(x, 0xEE, sizeof *x * kWords); });  // nobody needs the last output
    memory_.free(x);
    return graph;
  }

  Tensor forward_layer(Layer& layer, Tensor x) {
    Tensor out = memory_.allocate();
    launch([x, out] { attend(x, out); });
    Tensor y = memory_.allocate();
    for (int piece = 0; piece < schedule_.pieces; ++piece) {
      const int begin = begin_of(piece), end = begin_of(piece + 1);
      Tensor rest = memory_.allocate();
      launch([=] {
        for (int i = begin; i < end; ++i) rest[i] = mix(x[i], out[i]);
      });
      launch([=] {
        for (int i = begin; i < end; ++i) y[i] = mix(rest[i], 5);
      });
      if (piece < schedule_.swapped_pieces) {
        layer.rest.push_back(save(rest));
      } else {
        memory_.free(rest);
      }
    }
    layer.x = save(x);
    layer.out = save(out);
    return y;
  }

  void backward(Graph& graph, std::uint32_t seed) {
    Tensor dy = memory_.allocate();
    launch([dy, seed] {
      for (int i = 0; i < kWords; ++i) dy[i] = mix(seed, 3);
    });
    for (std::size_t i = graph.size(); i-- > 0;) {
      for (std::size_t ahead = 0;
           ahead <= std::min<std::size_t>(i, static_cast<std::size_t>(schedule_.prefetch));
           ++ahead) {
        if (schedule_.prefetch > 0) prefetch(graph[i - ahead]);
      }
      dy = backward_layer(graph[i], dy, &gradients_[i]);
      release(graph[i]);
    }
    result_.resize(result_.size() + kWords);
    const std::size_t at = result_.size() - kWords;
    launch([this, dy, at] {
      std::copy_n(dy, kWords, result_.begin() + static_cast<std::ptrdiff_t>(at));
    });
    memory_.free(dy);
  }

  Tensor backward_layer(Layer& layer, Tensor dy, std::uint32_t* gradient) {
    Tensor x = get(layer.x), out = get(layer.out), dx = memory_.allocate();
    for (int piece = 0; piece < schedule_.pieces; ++piece) {
      const int begin = begin_of(piece), end = begin_of(piece + 1);
      const bool is_swapped = piece < schedule_.swapped_pieces;
      Tensor rest =
          is_swapped ? get(layer.rest[static_cast<std::size_t>(piece)]) : memory_.allocate();
      if (!is_swapped)
        launch([=] {
          for (int i = begin; i < end; ++i) rest[i] = mix(x[i], out[i]);
        });
      launch([=] {
        for (int i = begin; i < end; ++i) {
          dx[i] = mix(dy[i], rest[i]) + x[i] * out[i];
          *gradient = mix(*gradient, dx[i]);
        }
      });
      if (!is_swapped) memory_.free(rest);
    }
    memory_.free(dy);
    return dx;
  }

  Saved save(Tensor tensor) {
    const Result<Ticket> ticket =
        swap_.swap_out(std::array{SwapSource{tensor, kTensorBytes}}, kCompute);
    Saved saved{.ticket = {}, .source = tensor};
    if (ticket.ok()) saved.ticket = ticket.value();
    return saved;
  }
  void let_go(Saved& saved) {
    if (!saved.ticket || saved.source == nullptr) return;
    EXPECT_TRUE(swap_.await_out(*saved.ticket, kCompute).ok());
    memory_.free(std::exchange(saved.source, nullptr));
  }
  void prefetch(Saved& saved) {
    if (saved.source != nullptr || saved.landed != nullptr) return;
    saved.landed = memory_.allocate();
    saved.is_awaited = false;
    EXPECT_TRUE(swap_.swap_in(*saved.ticket, Offset{0}, saved.landed, kTensorBytes, kCompute).ok());
  }
  Tensor get(Saved& saved) {
    if (saved.source != nullptr) return saved.source;
    prefetch(saved);
    EXPECT_TRUE(swap_.await_in(*saved.ticket, kCompute).ok());
    saved.is_awaited = true;
    return saved.landed;
  }
  void release(Saved& saved) {
    if (saved.source != nullptr && !saved.ticket)
      memory_.free(std::exchange(saved.source, nullptr));
    let_go(saved);
    if (!saved.is_awaited) {
      EXPECT_TRUE(swap_.await_in(*saved.ticket, kCompute).ok());
    }
    if (saved.landed != nullptr) memory_.free(std::exchange(saved.landed, nullptr));
    if (saved.ticket) {
      EXPECT_TRUE(swap_.release(*saved.ticket).ok());
    }
  }

  template <typename Action>
  void each(Layer& layer, Action action) {
    action(layer.x);
    action(layer.out);
    for (Saved& saved : layer.rest) action(saved);
  }
  void let_go(Layer& layer) {
    if (schedule_.lets_go_together) {
      std::vector<Ticket> tickets;
      each(layer, [&](Saved& saved) {
        if (saved.ticket && saved.source != nullptr) tickets.push_back(*saved.ticket);
      });
      EXPECT_TRUE(swap_.await_out(tickets, kCompute).ok());
      each(layer, [&](Saved& saved) {
        if (saved.ticket && saved.source != nullptr) memory_.free(std::exchange(saved.source, nullptr));
      });
    }
    each(layer, [&](Saved& saved) { let_go(saved); });
  }
  void prefetch(Layer& layer) {
    each(layer, [&](Saved& saved) { prefetch(saved); });
  }
  void release(Layer& layer) {
    each(layer, [&](Saved& saved) { release(saved); });
  }

  const Schedule schedule_;
  FakeDeviceMemory memory_;
  FakeCopyDevice* const device_;
  Swap& swap_;
  std::vector<std::uint32_t> gradients_;
  std::vector<std::uint32_t> result_;
};

inline std::vector<std::uint32_t> FakeTraining::expected(const Schedule& schedule) {
  const auto layers = static_cast<std::size_t>(schedule.layers);
  std::vector<std::uint32_t> result, gradients(layers);
  for (int i = 0; i < schedule.iterations; ++i) {
    for (int j = 0; j < schedule.forwards; ++j) {
      std::vector<std::array<std::uint32_t, kWords>> x(layers + 1), out(layers);
      for (int k = 0; k < kWords; ++k) {
        x[0][static_cast<std::size_t>(k)] =
            mix(static_cast<std::uint32_t>(i * 8 + j), static_cast<std::uint32_t>(k));
      }
      for (std::size_t l = 0; l < layers; ++l) {
        attend(x[l].data(), out[l].data());
        for (std::size_t k = 0; k < kWords; ++k) x[l + 1][k] = mix(mix(x[l][k], out[l][k]), 5);
      }
      std::array<std::uint32_t, kWords> dy{};
      for (std::uint32_t& value : dy) value = mix(static_cast<std::uint32_t>(j + 1), 3);
      for (std::size_t l = layers; l-- > 0;) {
        for (std::size_t k = 0; k < kWords; ++k) {
          dy[k] = mix(dy[k], mix(x[l][k], out[l][k])) + x[l][k] * out[l][k];
          gradients[l] = mix(gradients[l], dy[k]);
        }
      }
      result.insert(result.end(), dy.begin(), dy.end());
    }
  }
  result.insert(result.end(), gradients.begin(), gradients.end());
  return result;
}

}  // namespace ebbtide::fakes
