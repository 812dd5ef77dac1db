#include "hooks/torch_offload/store.h"

#include <torch/csrc/autograd/variable.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "hooks/torch_offload/tensor_layout.h"

namespace ebbtide::offload {
namespace {

class Kept final : public Saved {
 public:
  Kept(const at::Tensor& tensor, HeldBytes held)
      : tensor_(tensor), witness_(tensor, "a tensor"), held_(std::move(held)) {
    *held_ += size_bytes();
  }
  ~Kept() override { *held_ -= size_bytes(); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  std::int64_t size_bytes() const override { return bytes_of(tensor_); }
  std::int64_t swapped_bytes() const override { return 0; }
  bool prefetch() override { return true; }
  at::Tensor get() override {
    witness_.check();
    return tensor_;
  }
  at::Tensor get_as(at::IntArrayRef size, at::IntArrayRef stride, std::int64_t begin) override {
    return part_of(get(), size, stride, begin);
  }
  bool is_here() const override { return true; }
  bool is_changed() const override { return witness_.has_changed(); }

 private:
  at::Tensor tensor_;
  Witness witness_;
  HeldBytes held_;
};

}  // namespace

SavedHandles KeepStore::save_all(at::TensorList tensors) {
  SavedHandles saved;
  saved.reserve(tensors.size());
  for (const auto& tensor : tensors) saved.push_back(std::make_shared<Kept>(tensor, held_));
  return saved;
}

Witness::Witness(const at::Tensor& tensor, const char* name)
    : counter_(torch::autograd::impl::version_counter(tensor)),
      version_(counter_.current_version()),
      name_(name) {}

void Witness::check() const {
  if (!has_changed()) return;
  throw std::runtime_error(
      std::string(name_) + " was changed in place after ebbtide offload saved it for backward " +
      "(version " + std::to_string(counter_.current_version()) + ", expected " +
      std::to_string(version_) +
      "): use an operation that makes a new tensor, or change it after backward");
}

}  // namespace ebbtide::offload
