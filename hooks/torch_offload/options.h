// The checks of what a session was asked for, and sizes that follow from the machine.
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

// Bytes of memory that this process may use: the machine's, or its control group's limit. Beside a
// simulated device as much as is asked for: what is swapped takes no bytes.
std::int64_t host_memory();
// Host memory for a program that names no budget: three quarters of what is free.
std::int64_t default_host_budget();
// All memory of a device; of the host for host tensors.
std::int64_t device_memory(at::Device device);

}  // namespace ebbtide::offload
