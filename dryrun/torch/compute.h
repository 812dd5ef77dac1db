// What an operator's results hold after it ran: integers, booleans and a few small numbers as the host
// computes them, everything else as not computed.
#pragma once

#include "dryrun/torch/operator_call.h"

namespace ebbtide::dryrun {

// Runs the operator, and puts the values there that are known.
void compute(const Call& call, const CallTensors& tensors, ContextScope& scope);

}  // namespace ebbtide::dryrun
