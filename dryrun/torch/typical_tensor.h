// Typical values (core/typical.h) in tensors: in place of floating-point values, and as the result
// of operators that choose among them.
#pragma once

#include <ATen/core/Tensor.h>

#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// Puts them into `size` bytes of what is a copy of the tensor's memory, beginning `offset` bytes
// behind its first element. Integers and booleans become zero. The form is that of OperatorContext.
void put_typical(const void* tensor_impl, void* bytes, std::size_t size, std::size_t offset);

// A host tensor of the same shape full of them. Requires: floating point.
at::Tensor typical_like(const at::Tensor& tensor);

// Fills the indices that an operator has chosen out of `among` along `dim` (negative: from the
// end), and marks them derived.
// Requires: `indices` is a plain device tensor of int64.
void put_choices(const at::Tensor& indices, const at::Tensor& among, std::int64_t dim);

// Gives a gradient scaler's `found_inf` its typical value.
void put_found_inf(const at::Tensor& found_inf);

}  // namespace ebbtide::dryrun
