// What an operation graph asks for, if it is a convolution's: forward, or one of its two gradients.
#pragma once

#include <cstdint>
#include <optional>

#include "dryrun/core/work.h"
#include "dryrun/cudnn/descriptor.h"

namespace ebbtide::dryrun {

struct ConvolutionPlan {
  std::int64_t workspace_bytes = 0;
  Work product;  // the convolution as the matrix product that cuDNN's kernels make of it
  Work copies;   // into the layout that these want, and out of it; no launches: none
};

// None for other graphs. `uses_tensor_float`: the engine rounds float32 numbers to TensorFloat-32.
//
// Kernels want channels to lie side by side, and numbers of two bytes in eights of channels: what does not lie so
// is copied to the workspace and padded there; so are float32 factors wherever they lie. Of cuDNN 9.19's own plans that were
// looked at, for an H200 and an A100, most want just these bytes, forward and for the gradient of the input
// (`tests/python/test_dryrun_convolution.py` has nine shapes). A gradient of weights has sums in parts besides, a few MiB, of
// which the number differs. Convolutions of few channels a group have kernels that need nothing.
std::optional<ConvolutionPlan> plan_convolution(const Descriptor& operation_graph,
                                                bool uses_tensor_float);

// Whether float32 numbers are convolved, for which there are two engines.
bool may_use_tensor_float(const Descriptor& operation_graph);

}  // namespace ebbtide::dryrun
