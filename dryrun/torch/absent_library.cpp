#include "dryrun/torch/absent_library.h"

#include <array>

#include "dryrun/core/simulator.h"

namespace ebbtide::dryrun {

void tell_absent_library(std::string_view error) {
  constexpr std::array<std::array<const char*, 2>, 3> kLibraries{
      {{"cuFFT error", "cuFFT"}, {"cusolver error", "cuSOLVER"}, {"CUDA error: CUSPARSE", "cuSPARSE"}}};
  for (const auto& [words, library] : kLibraries) {
    if (error.find(words) != std::string_view::npos) report_unimplemented(library);
  }
}

}  // namespace ebbtide::dryrun
