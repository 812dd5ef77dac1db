#include "hooks/torch_offload/store.h"

#include <torch/csrc/autograd/variable.h>

#include <stdexcept>

namespace ebbtide::offload {
namespace {

class Kept final : public Saved {
 public:
  explicit Kept(const at::Tensor& tensor)
      : tensor_(tensor.detach()), witness_(tensor, "a tensor") {}
  std::int64_t size_bytes() const override { return static_cast<std::int64_t>(tensor_.nbytes()); }
  std::int64_t swapped_bytes() const override { return 0; }
  void prefetch() override {}
  at::Tensor get() override {
    witness_.check();
    return tensor_;
  }

 private:
  at::Tensor tensor_;
  Witness witness_;
};

}  // namespace

std::vector<SavedHandle> KeepStore::save_all(const Tensors& tensors) {
  std::vector<SavedHandle> saved;
  saved.reserve(tensors.size());
  for (const auto& tensor : tensors) saved.push_back(std::make_shared<Kept>(tensor));
  return saved;
}

Witness::Witness(const at::Tensor& tensor, std::string name)
    : counter_(torch::autograd::impl::version_counter(tensor)),
      version_(counter_.current_version()),
      name_(std::move(name)) {}

void Witness::check() const {
  if (has_changed()) throw_changed(name_, version_, counter_.current_version());
}

void throw_changed(const std::string& name, std::uint32_t saved, std::uint32_t found) {
  throw std::runtime_error(
      name + " was changed in place after ebbtide offload saved it for backward " + "(version " +
      std::to_string(found) + ", expected " + std::to_string(saved) +
      "): use an operation that makes a new tensor, or change it after backward");
}

}  // namespace ebbtide::offload
