// How much of a tensor an operator writes that changes it here and there: a KV cache, a row of a table.
#pragma once

#include <ATen/core/ivalue.h>

#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// Bytes of its first argument, which `facts.placing` says it changes in places; not more than all of it.
double placed_bytes(const OperatorFacts& facts, const c10::IValue* arguments);

// Bytes of the rows that a bag of embeddings sums up.
double bag_bytes(const c10::IValue* arguments);

}  // namespace ebbtide::dryrun
