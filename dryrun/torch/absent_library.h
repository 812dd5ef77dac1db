// Libraries of CUDA whose stand-in does not do all, or could not be built: cuFFT, cuSOLVER, cuSPARSE.
#pragma once

#include <string_view>

namespace ebbtide::dryrun {

// Says so on stderr, once, if that is what torch's words for an error are about: they do not say it.
void tell_absent_library(std::string_view error);

}  // namespace ebbtide::dryrun
