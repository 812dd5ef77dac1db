// Gradients of parameters, summed over pieces.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

namespace ebbtide::offload {

using Tensors = std::vector<at::Tensor>;

// One sum per parameter. Reduced precisions are summed in float32 and rounded once, at the end.
// With a single piece its gradient is the result, bit for bit and without a float32 copy.
class GradientSums {
 public:
  GradientSums(const Tensors& parameters, std::size_t pieces);
  // One piece's gradients, in the parameters' order; undefined where there is none.
  void add(Tensors gradients);
  // The sums in the parameters' precisions. The float32 ones are given back one by one.
  Tensors take();

 private:
  const Tensors& parameters_;
  std::size_t pieces_;
  Tensors sums_;
};

}  // namespace ebbtide::offload
