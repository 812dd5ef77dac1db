// How many places of a sparse tensor differ: what joining them keeps.
#pragma once

#include <ATen/core/Tensor.h>

namespace ebbtide::dryrun {

// All of them, where the indices are too large to be compared on the host.
std::int64_t different_places(const at::Tensor& sparse);

}  // namespace ebbtide::dryrun
