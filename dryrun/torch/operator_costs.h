// What decides how long an operator takes, from its name and schema.
#pragma once

#include <ATen/core/function_schema.h>

#include <string_view>

#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// `base`: the operator's name without its overload. Sets what of `facts` its time depends on.
void read_costs(const c10::FunctionSchema& schema, std::string_view base, OperatorFacts& facts);

}  // namespace ebbtide::dryrun
