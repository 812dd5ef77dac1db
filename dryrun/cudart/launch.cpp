// Kernels: registered, described, and never run.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "dryrun/cudart/status.h"

using namespace ebbtide;
using namespace ebbtide::dryrun;

namespace {

// Registers and shared memory of a kernel are not known; these are ordinary values.
constexpr int kRegistersPerThread = 32;
constexpr int kThreadsPerBlockBound = 1024;

struct CallConfiguration {
  dim3 grid, block;
  std::size_t shared_bytes;
  cudaStream_t stream;
};

thread_local std::vector<CallConfiguration> configurations;

// Device variables of modules: host memory, not counted as the module's memory is not in
// cudaMalloc.
struct Symbols {
  std::mutex mutex;
  std::map<const void*, std::size_t> sizes;
  std::map<const void*, std::unique_ptr<char[]>> storage;
};

Symbols& symbols() {
  static Symbols* instance = new Symbols();
  return *instance;
}

cudaError_t launch(cudaStream_t stream) {
  if (const cudaError_t error = check_capture(stream); error != cudaSuccess) return error;
  note_launch(stream);
  return cudaSuccess;
}

cudaError_t occupancy(int* blocks, int block_size, std::size_t dynamic_shared) {
  const DeviceModel& model = Simulator::instance().model();
  const int threads = std::max(1, block_size);
  int count =
      std::min(model.max_threads_per_multiprocessor / threads, model.max_blocks_per_multiprocessor);
  if (dynamic_shared > 0) {
    const std::size_t by_shared =
        static_cast<std::size_t>(model.shared_bytes_per_multiprocessor) / dynamic_shared;
    count = std::min(count, static_cast<int>(by_shared));
  }
  *blocks = count;
  return cudaSuccess;
}

void* symbol_storage(const void* symbol) {
  Symbols& all = symbols();
  const std::lock_guard lock(all.mutex);
  const auto size = all.sizes.find(symbol);
  if (size == all.sizes.end()) return nullptr;
  std::unique_ptr<char[]>& storage = all.storage[symbol];
  if (storage == nullptr) storage = std::make_unique<char[]>(size->second);
  return storage.get();
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* module = nullptr;
  return &module;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {}
void __cudaRegisterVar(void**, char* host, char*, const char*, int, std::size_t size, int, int) {
  Symbols& all = symbols();
  const std::lock_guard lock(all.mutex);
  all.sizes[host] = size;
}
char __cudaInitModule(void**) { return 1; }

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared_bytes,
                                     void* stream) {
  configurations.push_back({grid, block, shared_bytes, static_cast<cudaStream_t>(stream)});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared_bytes,
                                       void* stream) {
  if (configurations.empty()) return note(cudaErrorInvalidValue);
  const CallConfiguration configuration = configurations.back();
  configurations.pop_back();
  *grid = configuration.grid;
  *block = configuration.block;
  *shared_bytes = configuration.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = configuration.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(to_pointer(to_address(function)));
  return cudaSuccess;
}
cudaError_t cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  return __cudaGetKernel(kernel, function);
}
cudaError_t cudaGetFuncBySymbol(cudaFunction_t* function, const void* symbol) {
  *function = static_cast<cudaFunction_t>(to_pointer(to_address(symbol)));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t stream) {
  return launch(stream);
}
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, std::size_t, cudaStream_t stream) {
  return launch(stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* configuration, const void*, void**) {
  return launch(configuration->stream);
}
cudaError_t cudaLaunchCooperativeKernel(const void*, dim3, dim3, void**, std::size_t,
                                        cudaStream_t stream) {
  return launch(stream);
}

// CUB looks for the architecture that a kernel was compiled for among those that it was itself. torch
// has none for 8.7 and 8.9: such a device runs what was made for 8.6.
static int compiled_architecture(const DeviceModel& model) {
  const int own = model.major * 10 + model.minor;
  return model.major == 8 && own > 86 ? 86 : own;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  const DeviceModel& model = Simulator::instance().model();
  std::memset(attributes, 0, sizeof *attributes);
  attributes->maxThreadsPerBlock = kThreadsPerBlockBound;
  attributes->numRegs = kRegistersPerThread;
  attributes->binaryVersion = compiled_architecture(model);
  attributes->ptxVersion = attributes->binaryVersion;
  attributes->maxDynamicSharedSizeBytes = model.shared_bytes_per_block_optin;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaFuncSetCacheConfig(const void*, cudaFuncCache) { return cudaSuccess; }

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int block_size,
                                                          std::size_t dynamic_shared) {
  return occupancy(blocks, block_size, dynamic_shared);
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*,
                                                                   int block_size,
                                                                   std::size_t dynamic_shared,
                                                                   unsigned int) {
  return occupancy(blocks, block_size, dynamic_shared);
}
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void*, const cudaLaunchConfig_t*) {
  *clusters = Simulator::instance().model().multiprocessors;
  return cudaSuccess;
}

cudaError_t cudaGetSymbolAddress(void** pointer, const void* symbol) {
  *pointer = symbol_storage(symbol);
  return *pointer == nullptr ? note(cudaErrorInvalidSymbol) : cudaSuccess;
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* source, std::size_t size,
                               std::size_t offset, cudaMemcpyKind) {
  void* storage = symbol_storage(symbol);
  if (storage == nullptr) return note(cudaErrorInvalidSymbol);
  std::memcpy(static_cast<char*>(storage) + offset, source, size);
  return cudaSuccess;
}
cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* source, std::size_t size,
                                    std::size_t offset, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpyToSymbol(symbol, source, size, offset, kind);
}

}  // extern "C"
