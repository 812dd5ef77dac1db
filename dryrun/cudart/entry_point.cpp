// Driver functions by name, as torch asks the runtime for them.
#include <cuda.h>
#include <dlfcn.h>

#include "dryrun/cudart/status.h"

using namespace ebbtide::dryrun;

namespace {

using GetProcAddress = CUresult (*)(const char*, void**, int, cuuint64_t,
                                    CUdriverProcAddressQueryResult*);

// The stand-in driver is preloaded beside this library; the name finds it again.
GetProcAddress driver_lookup() {
  static const GetProcAddress lookup = [] {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    return driver == nullptr
               ? nullptr
               : reinterpret_cast<GetProcAddress>(dlsym(driver, "cuGetProcAddress_v2"));
  }();
  return lookup;
}

cudaError_t find(const char* symbol, void** function, int version,
                 cudaDriverEntryPointQueryResult* status) {
  *function = nullptr;
  const GetProcAddress lookup = driver_lookup();
  const bool found =
      lookup != nullptr && lookup(symbol, function, version, 0, nullptr) == CUDA_SUCCESS;
  if (status != nullptr) {
    *status = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  }
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function,
                                             unsigned int version, unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  return find(symbol, function, static_cast<int>(version), status);
}

#if CUDART_VERSION < 14000
cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long,
                                    cudaDriverEntryPointQueryResult* status) {
  return find(symbol, function, CUDART_VERSION, status);
}
#endif

}  // extern "C"
