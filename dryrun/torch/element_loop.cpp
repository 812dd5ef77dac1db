#include "dryrun/torch/element_loop.h"

#include <ATen/core/Tensor.h>

namespace ebbtide::dryrun {

namespace {

// Sizes and strides, but for dimensions of one element: their strides mean nothing.
bool lie_alike(const at::Tensor& a, const at::Tensor& b) {
  std::int64_t i = 0, j = 0;
  const auto skip = [](const at::Tensor& tensor, std::int64_t& dim) {
    while (dim < tensor.dim() && tensor.size(dim) == 1) ++dim;
    return dim < tensor.dim();
  };
  while (true) {
    const bool has_a = skip(a, i), has_b = skip(b, j);
    if (!has_a || !has_b) return has_a == has_b;
    if (a.size(i) != b.size(j) || a.stride(i) != b.stride(j)) return false;
    ++i, ++j;
  }
}

// What is compared with the first tensor on the device, one after the other. Tensors outlive it.
class Alike {
 public:
  bool add(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda() || tensor.layout() != at::kStrided) return true;
    const bool is_alike =
        first_ != nullptr ? lie_alike(*first_, tensor) : tensor.is_non_overlapping_and_dense();
    if (first_ == nullptr) first_ = &tensor;
    if (tensor.scalar_type() == at::kBool) return is_alike;  // a mask is not converted
    const bool is_same = !kind_ || *kind_ == tensor.scalar_type();
    kind_ = tensor.scalar_type();
    return is_alike && is_same;
  }

 private:
  const at::Tensor* first_ = nullptr;
  std::optional<at::ScalarType> kind_;
};

bool is_narrowed(at::ScalarType to, at::ScalarType from) {
  const bool is_half = from == at::kBFloat16 || from == at::kHalf;
  if (c10::isFloat8Type(to)) return from == at::kFloat || is_half;
  return from == at::kFloat && (to == at::kBFloat16 || to == at::kHalf);
}

// Torch has vectors for floating-point numbers that become narrower, and for no other conversion.
bool copies_single_elements(const at::Tensor& to, const at::Tensor& from) {
  if (!to.is_cuda() || !from.is_cuda()) return false;
  const bool is_vectorised =
      to.scalar_type() == from.scalar_type() || is_narrowed(to.scalar_type(), from.scalar_type());
  return !is_vectorised || !to.is_non_overlapping_and_dense() || !lie_alike(to, from);
}

bool joins_single_elements(const c10::List<at::Tensor>& parts) {
  for (const at::Tensor& part : parts) {
    if (part.is_cuda() && !part.is_contiguous()) return true;
  }
  return false;
}

}  // namespace

bool takes_single_elements(const OperatorFacts& facts, const c10::IValue* arguments,
                           std::size_t count) {
  if (facts.joins)
    return arguments[0].isTensorList() && joins_single_elements(arguments[0].toTensorList());
  if (facts.kind == OperatorKind::kCopy) {
    return copies_single_elements(arguments[0].toTensor(), arguments[1].toTensor());
  }
  if (!facts.is_pointwise) return false;
  Alike alike;
  for (std::size_t i = 0; i < count; ++i) {
    if (arguments[i].isTensor() && !alike.add(arguments[i].toTensor())) return true;
  }
  return false;
}

}  // namespace ebbtide::dryrun
