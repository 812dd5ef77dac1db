// Operators that Python carries out: on subclasses of Tensor (DTensor), under dispatch modes
// (selective checkpointing, counters).
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace ebbtide::dryrun {

// Whether torch would hand this call to Python next.
bool is_for_python(const c10::OperatorHandle& op, c10::DispatchKeySet keys);

// Hands it there as torch does, except that the companion stays switched on (`ours` is its key):
// what Python calls in turn, on the tensors inside, is what the device does.
void run_in_python(const c10::OperatorHandle& op, torch::jit::Stack* stack, c10::DispatchKey ours);

}  // namespace ebbtide::dryrun
