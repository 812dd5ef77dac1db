// What a factorisation says of itself, beside its floating-point results.
#pragma once

#include <ATen/core/function_schema.h>

#include "dryrun/torch/operator_call.h"

namespace ebbtide::dryrun {

// Where the operator's results tell whether it succeeded, and which rows it exchanged: by their names.
void read_outcomes(const c10::FunctionSchema& schema, OperatorFacts& facts);

// Writes there that it did, and none. Requires: the operator has run.
void put_outcomes(const Call& call);

}  // namespace ebbtide::dryrun
