#include "hooks/torch_offload/gradient_sums.h"

namespace ebbtide::offload {
namespace {

bool is_reduced(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

}  // namespace

GradientSums::GradientSums(const Tensors& parameters, std::size_t pieces)
    : parameters_(parameters), pieces_(pieces), sums_(parameters.size()) {}

void GradientSums::add(Tensors gradients) {
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    const at::Tensor gradient = std::move(gradients[i]);
    if (!gradient.defined()) continue;
    if (sums_[i].defined()) {
      sums_[i].add_(gradient);
    } else if (pieces_ > 1 && is_reduced(gradient.scalar_type())) {
      sums_[i] = gradient.to(at::kFloat);
    } else {
      sums_[i] = pieces_ > 1 ? gradient.clone() : gradient;
    }
  }
}

Tensors GradientSums::take() {
  Tensors taken(sums_.size());
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    const at::Tensor sum = std::move(sums_[i]);
    if (sum.defined()) taken[i] = sum.to(parameters_[i].scalar_type());
  }
  return taken;
}

}  // namespace ebbtide::offload
