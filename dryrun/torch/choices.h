// Choices among values that no kernel has computed: where the largest, smallest or drawn ones are (argmax, topk,
// multinomial). They are spread over what there is to choose (core/typical.h).
#pragma once

#include "dryrun/torch/operator_call.h"

namespace ebbtide::dryrun {

// Whether an operator chooses among values of which no kernel has computed any.
bool chooses_among_unknown(const Call& call, const Stack& arguments);

// Puts its indices. Requires: that it does, and that it has run.
void choose(const Call& call, const Stack& arguments);

}  // namespace ebbtide::dryrun
