// The classes of torch's that Python holds: stores, landings, and what was saved together.
#pragma once

#include <torch/custom_class.h>

#include <memory>
#include <utility>
#include <vector>

#include "hooks/torch_offload/recorder.h"
#include "hooks/torch_offload/swap_store.h"

namespace ebbtide::offload {

// Whether all of them are there, or on their way now.
inline bool prefetch_all(const SavedHandles& saved) {
  bool all = true;
  for (const auto& one : saved) all = one->prefetch() && all;
  return all;
}

// Tensors that were saved together. What nobody else needs is forgotten with it.
class SavedBatch final : public torch::CustomClassHolder {
 public:
  explicit SavedBatch(SavedHandles saved) : saved_(std::move(saved)) {}

  bool prefetch() { return prefetch_all(saved_); }

  at::Tensor get(std::int64_t number) { return saved_.at(static_cast<std::size_t>(number))->get(); }

  // All of them, none in place of one that was changed: get() throws the reason. Empty if one is
  // still the program's own tensor, whose later change get() must see.
  Tensors get_all() {
    Tensors found;
    for (const auto& one : saved_) {
      if (one->is_here()) return {};
    }
    found.reserve(saved_.size());
    for (const auto& one : saved_) found.push_back(one->is_changed() ? at::Tensor() : one->get());
    return found;
  }

 private:
  SavedHandles saved_;
};

struct PythonLanding final : torch::CustomClassHolder {
  explicit PythonLanding(const at::Tensor& tensor) : landing(std::make_shared<Landing>(tensor)) {}
  const LandingHandle landing;
};

class PythonSwapStore final : public torch::CustomClassHolder {
 public:
  // `device`: -1 for host tensors, or an index of CUDA's.
  PythonSwapStore(std::int64_t device, std::int64_t host_budget, std::int64_t most_in_flight)
      : store(device < 0 ? at::Device(at::kCPU)
                         : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)),
              host_budget, most_in_flight) {}
  void layer_ended() { store.layer_ended(); }
  void let_go() { store.let_go(); }
  SwapStore store;
};

struct PythonKeepStore final : torch::CustomClassHolder {
  KeepStore store;
};

}  // namespace ebbtide::offload
