// The checks of what a session was asked for, and the size of a device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "hooks/torch_offload/offload.hpp"

namespace ebbtide::offload {

// Throws std::invalid_argument, which names the option, its value and what is allowed.
void check(const Options& options, at::Device device);
// With budgets that the program leaves open taken from EBBTIDE_HBM and EBBTIDE_HOST. Throws
// std::invalid_argument for what is no size.
Options with_environment(Options options);
void check(const LossOptions& options);

// All memory of a device; of the host for host tensors.
std::int64_t device_memory(at::Device device);

}  // namespace ebbtide::offload
