#include "allocator/device/cuda_runtime.h"

#include <dlfcn.h>
#include <link.h>

#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#if __has_include(<cuda_runtime_api.h>)
#include <cuda_runtime_api.h>
static_assert(ebbtide::CudaRuntime::kSuccess == cudaSuccess);
static_assert(ebbtide::CudaRuntime::kOutOfMemory == cudaErrorMemoryAllocation);
static_assert(ebbtide::CudaRuntime::kNotReady == cudaErrorNotReady);
static_assert(ebbtide::CudaRuntime::kStreamNonBlocking == cudaStreamNonBlocking);
static_assert(ebbtide::CudaRuntime::kHostRegisterPortable == cudaHostRegisterPortable);
static_assert(ebbtide::CudaRuntime::kMemcpyDefault == cudaMemcpyDefault);
static_assert(sizeof(cudaStream_t) == sizeof(void*) && sizeof(cudaError_t) == sizeof(int));
#endif

namespace ebbtide {
namespace {

// A handle on the first loaded library whose file name begins with libcudart; null if there is
// none. Needed where torch was loaded without its symbols being global, and where the name has a
// suffix.
void* loaded_runtime() {
  std::string path;
  ::dl_iterate_phdr(
      [](dl_phdr_info* library, std::size_t, void* found) {
        const std::string_view name = library->dlpi_name;
        const std::size_t slash = name.rfind('/');
        const std::string_view file =
            slash == std::string_view::npos ? name : name.substr(slash + 1);
        if (!file.starts_with("libcudart")) return 0;
        *static_cast<std::string*>(found) = name;
        return 1;
      },
      &path);
  return path.empty() ? nullptr : ::dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
}

class Lookup {
 public:
  // A preloaded library comes first, as it does for torch.
  Lookup()
      : library_(::dlsym(RTLD_DEFAULT, "cudaMemcpyAsync") != nullptr ? RTLD_DEFAULT
                                                                     : loaded_runtime()) {
    has_runtime_ = ::dlsym(library_, "cudaMemcpyAsync") != nullptr;
  }

  template <typename Function>
  void operator()(Function& function, const char* name) {
    void* const symbol = has_runtime_ ? ::dlsym(library_, name) : nullptr;
    if (symbol == nullptr && missing_.empty()) missing_ = name;
    function = reinterpret_cast<Function>(symbol);
  }

  bool has_runtime() const { return has_runtime_; }
  const std::string& missing() const { return missing_; }

 private:
  void* library_;
  bool has_runtime_ = false;
  std::string missing_;  // the first function that was not found
};

Result<CudaRuntime> look_up() {
  Lookup find;
  if (!find.has_runtime()) {
    return Error{ErrorCode::kUnsupported,
                 "no CUDA runtime is loaded in this process: import torch first"};
  }
  CudaRuntime runtime{};
  find(runtime.get_device, "cudaGetDevice");
  find(runtime.set_device, "cudaSetDevice");
  find(runtime.get_device_count, "cudaGetDeviceCount");
  find(runtime.device_get_pci_bus_id, "cudaDeviceGetPCIBusId");
  find(runtime.stream_create_with_flags, "cudaStreamCreateWithFlags");
  find(runtime.stream_destroy, "cudaStreamDestroy");
  find(runtime.stream_synchronize, "cudaStreamSynchronize");
  find(runtime.stream_wait_event, "cudaStreamWaitEvent");
  find(runtime.event_create, "cudaEventCreate");
  find(runtime.event_destroy, "cudaEventDestroy");
  find(runtime.event_record, "cudaEventRecord");
  find(runtime.event_query, "cudaEventQuery");
  find(runtime.event_elapsed_time, "cudaEventElapsedTime");
  find(runtime.memcpy_async, "cudaMemcpyAsync");
  find(runtime.host_register, "cudaHostRegister");
  find(runtime.host_unregister, "cudaHostUnregister");
  find(runtime.get_last_error, "cudaGetLastError");
  find(runtime.get_error_string, "cudaGetErrorString");
  if (find.missing().empty()) return runtime;
  return Error{ErrorCode::kUnsupported,
               "the CUDA runtime in this process has no " + find.missing()};
}

}  // namespace

Result<const CudaRuntime*> CudaRuntime::find() {
  static std::mutex lock;
  static std::optional<CudaRuntime> found;
  const std::lock_guard guard(lock);
  if (!found) {
    const Result<CudaRuntime> looked_up = look_up();
    if (!looked_up.ok()) return looked_up.error();
    found = looked_up.value();
  }
  return &*found;
}

}  // namespace ebbtide
