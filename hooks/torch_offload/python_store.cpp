// SwapStore as a class of torch's, for python_shim/ebbtide/_offload/_swap_store.py.
//
// Tensors cross from Python and back a whole batch at a time, and what is done for each of them is
// done here. torch's own class registry carries them: nothing of Python is needed to build this.
#include <torch/custom_class.h>

#include <memory>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "hooks/torch_adaptor.h"
#include "hooks/torch_offload/swap_store.h"

namespace ebbtide::offload {
namespace {

// Tensors that were saved together. What nobody else needs is forgotten with it.
class SwapBatch final : public torch::CustomClassHolder {
 public:
  explicit SwapBatch(std::vector<std::shared_ptr<Swapped>> saved) : saved_(std::move(saved)) {}

  // Whether all of them are there, or on their way now.
  bool prefetch() {
    bool all = true;
    for (const auto& one : saved_) all = one->try_prefetch() && all;
    return all;
  }

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
  std::vector<std::shared_ptr<Swapped>> saved_;
};

using SavedBatch =
    std::tuple<c10::intrusive_ptr<SwapBatch>, std::vector<std::int64_t>, std::vector<std::int64_t>>;

class PythonSwapStore final : public torch::CustomClassHolder {
 public:
  // `device`: -1 for host tensors, or an index of CUDA's.
  PythonSwapStore(std::int64_t device, std::int64_t host_budget, std::int64_t most_in_flight)
      : store_(device < 0 ? at::Device(at::kCPU)
                          : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)),
               host_budget, most_in_flight) {}

  // The batch, and for each tensor its bytes and how many of them leave the device.
  SavedBatch save_all(const std::vector<at::Tensor>& tensors) {
    auto saved = store_.swap_all(tensors);
    std::vector<std::int64_t> sizes, swapped;
    for (const auto& one : saved) {
      sizes.push_back(one->size_bytes());
      swapped.push_back(one->swapped_bytes());
    }
    return {c10::make_intrusive<SwapBatch>(std::move(saved)), std::move(sizes), std::move(swapped)};
  }

  void layer_ended() { store_.layer_ended(); }
  void let_go() { store_.let_go(); }
  std::int64_t held_bytes() const { return store_.held_bytes(); }
  std::int64_t number() const { return static_cast<std::int64_t>(store_.number()); }

 private:
  SwapStore store_;
};

TORCH_LIBRARY(ebbtide, library) {
  library.class_<SwapBatch>("SwapBatch")
      .def("prefetch", &SwapBatch::prefetch)
      .def("get", &SwapBatch::get)
      .def("get_all", &SwapBatch::get_all);
  library.class_<PythonSwapStore>("SwapStore")
      .def(torch::init<std::int64_t, std::int64_t, std::int64_t>())
      .def("save_all", [](const c10::intrusive_ptr<PythonSwapStore>& self,
                          std::vector<at::Tensor> tensors) { return self->save_all(tensors); })
      .def("layer_ended", &PythonSwapStore::layer_ended)
      .def("let_go", &PythonSwapStore::let_go)
      .def("held_bytes",
           [](const c10::intrusive_ptr<PythonSwapStore>& self) { return self->held_bytes(); })
      .def("number",
           [](const c10::intrusive_ptr<PythonSwapStore>& self) { return self->number(); });
}

}  // namespace
}  // namespace ebbtide::offload
