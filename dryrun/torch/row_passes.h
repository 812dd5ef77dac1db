// How often kernels that reduce rows (softmax, norms) go over a tensor beyond reading their
// arguments and writing their results once.
#pragma once

#include <ATen/core/ivalue.h>

#include "dryrun/core/work.h"
#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// Adds them to `work`. `arguments` are those of the operator.
void add_row_passes(const OperatorFacts& facts, const c10::IValue* arguments, Work& work);

}  // namespace ebbtide::dryrun
