#include "dryrun/torch/operator_call.h"

#include <torch/csrc/autograd/graph_task.h>

#include "dryrun/torch/step_watch.h"
#include "dryrun/torch/typical_tensor.h"

namespace ebbtide::dryrun {

bool is_in_backward() { return torch::autograd::get_current_graph_task_id() != -1; }

ContextScope::ContextScope(const OperatorFacts& facts, const CallTensors& tensors)
    : saved_(operator_context()) {
  OperatorContext& context = operator_context();
  context.name = facts.name.c_str();
  context.subject = tensors.first;
  context.describe = &describe_tensor;
  context.put_typical = &put_typical;
  context.copy_limit = -1;
  context.launches = 0;
  context.is_in_backward = is_in_backward() || is_beside_training();
  const bool reads_values =
      facts.kind == OperatorKind::kCopy || facts.kind == OperatorKind::kRead;
  context.reads_scratch = !reads_values;
  if (!reads_values) {
    context.is_quiet = false;
    context.scratch_count = -1;
  }
}

}  // namespace ebbtide::dryrun
