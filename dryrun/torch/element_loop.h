// Whether torch's kernel for an operator takes vectors of elements, or one element at a time.
//
// Torch's loops over elements (TensorIterator) take vectors where all tensors lie in memory alike
// and hold one kind of numbers. Where one is strided or broadcast, or is converted on the way, each
// element is looked up by itself, which takes longer than its bytes do.
#pragma once

#include <ATen/core/ivalue.h>

#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// Of the operator's `count` arguments. Reads sizes and strides only.
bool takes_single_elements(const OperatorFacts& facts, const c10::IValue* arguments,
                           std::size_t count);

}  // namespace ebbtide::dryrun
