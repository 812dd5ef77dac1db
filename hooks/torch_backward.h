// Whether the calling thread is inside autograd's backward pass.
#pragma once

namespace ebbtide {

// A function that answers it in about two nanoseconds; null when the loaded torch does not tell.
bool (*find_backward_probe())();

}  // namespace ebbtide
