// What an operator asks of the device, from its schema and the shapes of its arguments.
#pragma once

#include <ATen/core/stack.h>

#include "dryrun/core/work.h"
#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// The work of an operator that has run: `arguments` as they were on the stack before (`counted` are
// their bytes), its results at the stack's end now.
class OperatorWork {
 public:
  // Reads the arguments, the last `argument_count` values of the stack. Cheap: nothing is kept but
  // sums.
  OperatorWork(const OperatorFacts& facts, const torch::jit::Stack& stack,
               std::size_t argument_count);

  // Adds the results, the last values of the stack.
  Work with_results(const torch::jit::Stack& stack, std::size_t result_count, int launches) const;

 private:
  void add_written(const c10::IValue& value, Work& work) const;

  const OperatorFacts& facts_;
  Work work_;
  bool takes_single_elements_ = false;
  bool is_shaped_later_ = false;  // an argument for its result is empty: the operator gives it its size
  at::Tensor depthwise_weight_;  // of a convolution of each channel by itself, forward
  double byte_factor_ = 1;  // of a kernel that reaches less of the bandwidth than others
};

}  // namespace ebbtide::dryrun
