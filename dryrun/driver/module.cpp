// Modules compiled at run time (NVRTC): loaded without looking at them, their kernels never run.
#include <algorithm>

#include "dryrun/core/stream.h"
#include "dryrun/driver/status.h"

using namespace ebbtide::dryrun;

namespace {

constexpr int kRegistersPerThread = 32;
char module_object;
char function_object;

CUresult load(CUmodule* module) {
  *module = reinterpret_cast<CUmodule>(&module_object);
  return CUDA_SUCCESS;
}

CUresult launch(CUstream stream) {
  note_launch(stream);
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult cuModuleLoad(CUmodule* module, const char*) { return load(module); }
CUresult cuModuleLoadData(CUmodule* module, const void*) { return load(module); }
CUresult cuModuleLoadDataEx(CUmodule* module, const void*, unsigned int, CUjit_option*, void**) {
  return load(module);
}
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char*) {
  *function = reinterpret_cast<CUfunction>(&function_object);
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int,
                        unsigned int, unsigned int, unsigned int, CUstream stream, void**, void**) {
  return launch(stream);
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* configuration, CUfunction, void**, void**) {
  return launch(configuration->hStream);
}
CUresult cuLaunchCooperativeKernel(CUfunction, unsigned int, unsigned int, unsigned int,
                                   unsigned int, unsigned int, unsigned int, unsigned int,
                                   CUstream stream, void**) {
  return launch(stream);
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction) {
  const ebbtide::dryrun::DeviceModel& model = Simulator::instance().model();
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = kMaxThreadsPerBlock;
      break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = kRegistersPerThread;
      break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *value = model.major * 10 + model.minor;
      break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = model.shared_bytes_per_block_optin;
      break;
    default:
      *value = 0;
      break;  // no static shared, constant or local memory
  }
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int block_size,
                                                     std::size_t) {
  const ebbtide::dryrun::DeviceModel& model = Simulator::instance().model();
  *blocks = std::min(model.max_threads_per_multiprocessor / std::max(1, block_size),
                     model.max_blocks_per_multiprocessor);
  return CUDA_SUCCESS;
}

}  // extern "C"
