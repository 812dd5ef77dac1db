// Memory that a library of CUDA's asks torch for once, and keeps.
#pragma once

#include "allocator/base/units.h"

namespace ebbtide {

// Whether the calling thread is making the workspace of a cuBLAS handle, and asks for `size` bytes: it lives as long as the process,
// and in an arena it would be in the way of every plan. Walks up the stack if workspaces are of that size. Takes no lock of torch's.
bool is_for_workspace(Bytes size) noexcept;

}  // namespace ebbtide
