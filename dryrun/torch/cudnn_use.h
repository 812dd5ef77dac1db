// Which of torch's operators cuDNN does here: attention, convolutions and recurrent layers. Others, for which torch
// would take it on a device, are done by torch's own kernels.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace ebbtide::dryrun {

// Before any operator runs: where cuDNN's stand-in could not be built, torch is told to do without.
void set_up_cudnn();

// Runs torch's own operator in the place of one of cuDNN's that is not simulated; false: it is none of these.
bool run_without_cudnn(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// An operator that asks by itself whether cuDNN may do it, and must hear no. The answer is the process's: it is no
// while any thread is in one.
class CudnnAbsent {
 public:
  explicit CudnnAbsent(bool is_absent);
  ~CudnnAbsent();
  CudnnAbsent(const CudnnAbsent&) = delete;
  CudnnAbsent& operator=(const CudnnAbsent&) = delete;

 private:
  bool is_on_;
};

}  // namespace ebbtide::dryrun
