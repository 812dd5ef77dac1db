// Recognises training steps in the operators that a program runs.
//
// A step ends where the next one's work begins: at the first operator of a forward pass after an
// update. An update is what writes in place while no gradient is recorded: outside of backward, and
// of functions with a backward of their own, any such operator after one; within backward only an
// optimizer's own, since gradients are summed there.
#pragma once

#include <ATen/core/stack.h>

#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// Sees every operator on a device, from any thread, before it runs.
void watch_step(const OperatorFacts& facts, const torch::jit::Stack& stack, bool is_in_backward);

// The program is over: a step that has made its update is one.
void end_watched_step();

// Whether autograd has run an operator on a device, from any thread.
bool saw_backward();

// From a backward on until an operator that autograd records: an optimizer's products, an evaluation's.
bool is_beside_training();

}  // namespace ebbtide::dryrun
