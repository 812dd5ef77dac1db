// cuFFT: plans are kept, nothing is computed; their time and work area are known from their lengths.
#include <cufftXt.h>

#include <map>
#include <mutex>

#include "dryrun/core/fourier.h"
#include "dryrun/core/simulator.h"
#include "dryrun/core/stream.h"

using namespace ebbtide::dryrun;

namespace {

struct Plan {
  cudaStream_t stream = nullptr;
  Transform transform;
};

struct Plans {
  std::mutex mutex;
  std::map<cufftHandle, Plan> made;
  cufftHandle last = 0;
};

Plans& plans() {
  static Plans* instance = new Plans();
  return *instance;
}

// Does something with a plan, if there is one of that number.
template <typename Deed>
cufftResult with_plan(cufftHandle handle, Deed&& deed) {
  const std::lock_guard lock(plans().mutex);
  const auto found = plans().made.find(handle);
  if (found == plans().made.end()) return CUFFT_INVALID_PLAN;
  deed(found->second);
  return CUFFT_SUCCESS;
}

// Of a complex number whose parts are like this type's; 0 for what cuFFT does not transform.
double complex_bytes(cudaDataType type) {
  switch (type) {
    case CUDA_R_64F:
    case CUDA_C_64F:
      return 16;
    case CUDA_R_32F:
    case CUDA_C_32F:
      return 8;
    case CUDA_R_16F:
    case CUDA_C_16F:
    case CUDA_R_16BF:
    case CUDA_C_16BF:
      return 4;
    default:
      return 0;
  }
}

bool is_real(cudaDataType type) {
  return type == CUDA_R_64F || type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}

}  // namespace

extern "C" {

cufftResult cufftCreate(cufftHandle* handle) {
  const std::lock_guard lock(plans().mutex);
  *handle = ++plans().last;
  plans().made[*handle] = {};
  return CUFFT_SUCCESS;
}
cufftResult cufftDestroy(cufftHandle handle) {
  const std::lock_guard lock(plans().mutex);
  return plans().made.erase(handle) == 1 ? CUFFT_SUCCESS : CUFFT_INVALID_PLAN;
}
cufftResult cufftSetStream(cufftHandle handle, cudaStream_t stream) {
  return with_plan(handle, [=](Plan& plan) { plan.stream = stream; });
}
cufftResult cufftGetVersion(int* version) {
  *version = CUFFT_VERSION;
  return CUFFT_SUCCESS;
}

cufftResult cufftXtMakePlanMany(cufftHandle handle, int rank, long long* lengths, long long*,
                                long long, long long, cudaDataType input, long long*, long long,
                                long long, cudaDataType output, long long batch, std::size_t* size,
                                cudaDataType type) {
  const double bytes = complex_bytes(type);
  if (bytes == 0) return CUFFT_INVALID_TYPE;
  return with_plan(handle, [&](Plan& plan) {
    plan.transform = {.lengths = std::vector<double>(lengths, lengths + rank),
                      .batch = static_cast<double>(batch),
                      .complex_bytes = bytes,
                      .numbers = bytes == 16  ? NumberKind::kFloat64
                                 : bytes == 8 ? NumberKind::kFloat32
                                              : NumberKind::kFloat16,
                      .is_real = is_real(input) || is_real(output)};
    *size = static_cast<std::size_t>(work_area_bytes(plan.transform));
  });
}

cufftResult cufftXtExec(cufftHandle handle, void*, void*, int) {
  return with_plan(handle, [](Plan& plan) { note_work(plan.stream, work_of(plan.transform)); });
}

// Called by the generated stand-ins of everything that is not simulated.
int ebbtide_dryrun_refuse_cufft(const char* function) {
  report_unimplemented(function);
  return CUFFT_NOT_SUPPORTED;
}

}  // extern "C"
