// One call of an operator, on its way to the device, and what the stand-ins are told of it.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstddef>
#include <functional>

#include "dryrun/core/operator_context.h"
#include "dryrun/torch/device_tensor.h"
#include "dryrun/torch/host_call.h"
#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// Whether autograd is at work: a forward pass there is a recomputation.
bool is_in_backward();

// Tells the stand-ins what runs, for as long as it lives.
class ContextScope {
 public:
  ContextScope(const OperatorFacts& facts, const CallTensors& tensors);
  ~ContextScope() { operator_context() = saved_; }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

  // The results are known already: reads by the operator itself do not matter, except for a count.
  void be_quiet(std::int64_t count) {
    operator_context().is_quiet = true;
    operator_context().scratch_count = count;
  }

 private:
  OperatorContext saved_;
};

// `stack` holds the arguments before it ran, and its results afterwards.
struct Call {
  const c10::OperatorHandle& op;
  OperatorFacts& facts;
  c10::DispatchKeySet below;
  Stack* stack;
  std::size_t argument_count;
  const std::function<void()>* replayed = nullptr;  // in a graph's launch: in the operator's place

  void run() const {
    if (replayed != nullptr) return (*replayed)();
    op.redispatchBoxed(below, stack);
  }
  Stack arguments() const {
    return Stack(stack->end() - static_cast<std::ptrdiff_t>(argument_count), stack->end());
  }
};

// The device tensors that the operator has left on the stack; each may be replaced.
template <typename Visit>
void for_each_returned(const Call& call, Visit&& visit) {
  const std::size_t begin = call.stack->size() - call.facts.return_count;
  for (std::size_t i = begin; i < call.stack->size(); ++i) {
    c10::IValue& value = (*call.stack)[i];
    if (value.isTensor()) {
      at::Tensor tensor = value.toTensor();
      if (visit(tensor)) value = tensor;
    } else if (value.isTensorList()) {
      for (at::Tensor tensor : value.toTensorVector()) visit(tensor);
    }
  }
}

}  // namespace ebbtide::dryrun
