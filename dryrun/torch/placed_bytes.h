// How much of a tensor an operator writes that changes it here and there: a KV cache, a row of a table.
#pragma once

#include <ATen/core/ivalue.h>

#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// Bytes of its first argument, which `facts.placing` says it changes in places; not more than all of it.
double placed_bytes(const OperatorFacts& facts, const c10::IValue* arguments);

// Bytes that adding at indices takes besides (index_put_ with accumulate=True: what `x[i]` has for a backward): torch makes
// one index of those of all dimensions, by operators that are seen one by one, and sorts it. Requires: facts.placing is kIndices.
double sorted_places_bytes(const c10::IValue* arguments);

// Bytes of the rows that a bag of embeddings sums up.
double bag_bytes(const c10::IValue* arguments);

}  // namespace ebbtide::dryrun
