// Recognises training steps in the operators that a program runs.
//
// A step ends where the next one's work begins: at the first operator of a forward pass after an
// update. An update is what writes, outside of backward and while no gradient is recorded, a parameter that has a gradient; or
// what is an optimizer's own operator, in backward, too. Where a program shows neither (an optimizer of kernels that are not
// torch's, parameters of FSDP2), anything that writes there is one, except in functions with a backward of their own. The end
// of an optimizer's step, of which the package tells (python_shim/ebbtide/_updates.py), is one wherever that ran.
#pragma once

#include <ATen/core/stack.h>

#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// What an operator tells of a step, where it is called. A CUDA graph that has captured it does it again later, in other
// circumstances, and tells the same.
struct StepSign {
  bool is_in_backward = false;
  bool is_forward = false;     // of a forward pass, as far as the modes tell
  bool is_recorded = false;    // autograd knows of it, and it is no copy
  bool writes = false;         // changes a tensor, and is neither a copy nor a fill; or a kernel of which nothing is known
  bool is_update = false;      // an optimizer's own operator, or writes a parameter that has a gradient
  const void* table = nullptr;  // of an embedding: whose rows are looked up, and how many
  double tokens = 0;
};
StepSign step_sign(const OperatorFacts& facts, const torch::jit::Stack& stack);
StepSign step_sign_of_kernel();

// Sees every operator on a device, from any thread, before it runs.
void watch_step(const StepSign& sign);

// The program is over: a step that has made its update is one.
void end_watched_step();

// Whether autograd has run an operator on a device, from any thread.
bool saw_backward();

// From a backward on until an operator that autograd records: an optimizer's products, an evaluation's.
bool is_beside_training();

}  // namespace ebbtide::dryrun
