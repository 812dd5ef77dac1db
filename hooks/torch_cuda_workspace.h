// Memory that a library of CUDA's asks torch for once, and keeps.
#pragma once

namespace ebbtide {

// Whether the calling thread is making the workspace of a cuBLAS handle: it lives as long as the process, and in an arena it
// would be in the way of every plan. Walks up the stack: for requests that nothing is known of. Takes no lock of torch's.
bool is_for_workspace() noexcept;

}  // namespace ebbtide
