// An operator that was captured into a CUDA graph.
#pragma once

#include <ATen/core/stack.h>

#include <functional>

#include "dryrun/core/capture.h"
#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

using torch::jit::Stack;

// The stream that this thread's operators go to, if it captures; otherwise null.
StreamClock* capturing_stream();

// Owns no device memory: its tensors lie over the addresses that the captured ones had, as a graph does. Whether that memory
// is still theirs is the program's affair.
class CapturedCall {
 public:
  CapturedCall(const c10::OperatorHandle& op, OperatorFacts& facts, const Stack& arguments);

  // What the operator queued itself, in order: copies, fills, and operators it called.
  Deeds& parts() { return parts_; }
  // Once the operator has run: its results, at the stack's end, and the kernels it launched.
  void note_results(const Stack& stack, int launches, bool is_in_backward);

  // Calls run(stack, parts): the arguments are on the stack, and parts() does what the operator queued and leaves its
  // results there, as the operator itself would.
  using Run = std::function<void(Stack& stack, const std::function<void()>& parts)>;
  void launch(StreamClock& stream, const Run& run) const;

  const c10::OperatorHandle& op() const { return op_; }
  OperatorFacts& facts() const { return facts_; }
  int launches() const { return launches_; }
  bool is_in_backward() const { return is_in_backward_; }

 private:
  c10::OperatorHandle op_;
  OperatorFacts& facts_;
  Stack arguments_, results_;
  Deeds parts_;
  int launches_ = 0;
  bool is_in_backward_ = false;
};

}  // namespace ebbtide::dryrun
