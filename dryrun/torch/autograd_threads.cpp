// Waits until autograd's threads rest, at the end of a program.
//
// backward() returns before the thread of a device has let go of the pass: what a program had it
// call at the end, such as FSDP2's, is a Python object that the thread frees. Should the
// interpreter end in that moment, the thread that asks for it is torn down inside of a destructor,
// and the process aborts (CPython before 3.14). In training the moment is rarely met; a dry run is
// over soon after its last step.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include "dryrun/core/export.h"
#include "dryrun/core/simulator.h"
#include "dryrun/torch/step_watch.h"

namespace ebbtide::dryrun {

namespace {

bool is_used(c10::DeviceIndex device) {
  constexpr auto kAggregate = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device);
  return stats.allocated_bytes[kAggregate].allocated > 0;
}

// A thread takes its work in order: a pass of no elements, without Python, is the last it does.
void pass_through(c10::DeviceIndex device) {
  const at::AutoGradMode records(true);
  const auto options = at::TensorOptions().device(c10::DeviceType::CUDA, device);
  const at::Tensor leaf = at::empty({0}, options).set_requires_grad(true);
  leaf.view({0, 1}).backward(at::empty({0, 1}, options));
}

}  // namespace

}  // namespace ebbtide::dryrun

// For a thread that does not hold the interpreter. Returns whether it went well.
extern "C" EBBTIDE_DRYRUN_API int ebbtide_dryrun_rest_autograd() {
  using namespace ebbtide::dryrun;
  if (!saw_backward()) return 1;
  try {
    for (int device = 0; device < Simulator::instance().device_count(); ++device) {
      const auto index = static_cast<c10::DeviceIndex>(device);
      if (is_used(index)) pass_through(index);
    }
  } catch (const std::exception&) {
    return 0;
  }
  return 1;
}
