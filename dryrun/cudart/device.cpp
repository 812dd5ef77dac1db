// Devices: which there are, which is current, what they answer about themselves.
#include <atomic>
#include <cstdio>
#include <cstring>

#include "dryrun/core/device_attribute.h"
#include "dryrun/cudart/status.h"

using namespace ebbtide;
using namespace ebbtide::dryrun;

namespace {

constexpr int kLeastPriority = 0;
constexpr int kGreatestPriority = -5;

void fill_limits(cudaDeviceProp& prop, const DeviceModel& model) {
  prop.sharedMemPerBlock = kSharedBytesPerBlock;
  prop.regsPerBlock = kRegistersPerMultiprocessor;
  prop.warpSize = kWarpSize;
  prop.memPitch = 2147483647;
  prop.maxThreadsPerBlock = kMaxThreadsPerBlock;
  const int threads[3] = {kMaxThreadsPerBlock, kMaxThreadsPerBlock, 64};
  const int grid[3] = {kMaxGridX, kMaxGridYZ, kMaxGridYZ};
  std::memcpy(prop.maxThreadsDim, threads, sizeof threads);
  std::memcpy(prop.maxGridSize, grid, sizeof grid);
  prop.totalConstMem = 65536;
  prop.textureAlignment = 512;
  prop.texturePitchAlignment = 32;
  prop.surfaceAlignment = 512;
  prop.maxThreadsPerMultiProcessor = model.max_threads_per_multiprocessor;
  prop.sharedMemPerMultiprocessor = static_cast<std::size_t>(model.shared_bytes_per_multiprocessor);
  prop.regsPerMultiprocessor = kRegistersPerMultiprocessor;
  prop.sharedMemPerBlockOptin = static_cast<std::size_t>(model.shared_bytes_per_block_optin);
  prop.maxBlocksPerMultiProcessor = model.max_blocks_per_multiprocessor;
  prop.reservedSharedMemPerBlock = kReservedSharedBytesPerBlock;
  prop.accessPolicyMaxWindowSize = 128 << 20;
}

void fill_abilities(cudaDeviceProp& prop, const DeviceModel& model) {
  prop.canMapHostMemory = 1;
  prop.concurrentKernels = 1;
  prop.ECCEnabled = 1;
  prop.asyncEngineCount = 3;
  prop.unifiedAddressing = 1;
  prop.streamPrioritiesSupported = 1;
  prop.globalL1CacheSupported = 1;
  prop.localL1CacheSupported = 1;
  prop.managedMemory = 1;
  prop.concurrentManagedAccess = 1;
  prop.computePreemptionSupported = 1;
  prop.canUseHostPointerForRegisteredMem = 1;
  prop.cooperativeLaunch = 1;
  prop.hostRegisterSupported = 1;
  prop.memoryPoolsSupported = 1;
  prop.clusterLaunch = model.major >= 9 ? 1 : 0;
}

// Once: the program's own error names no option.
void tell_missing(int device) {
  const int count = Simulator::instance().device_count();
  static std::atomic<bool> is_told = false;
  if (count == 0 || device < count || is_told.exchange(true)) return;
  std::fprintf(stderr, "ebbtide dryrun: the program asks for device %d, and there %s %d: give --count %d or more\n", device,
               count == 1 ? "is" : "are", count, device + 1);
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = Simulator::instance().device_count();
  if (*count == 0) return note(cudaErrorNoDevice);
  enter();
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  enter();
  *device = current_device();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (!is_device(device)) {
    tell_missing(device);
    return note(cudaErrorInvalidDevice);
  }
  enter();
  current_device() = device;
  return cudaSuccess;
}

cudaError_t cudaInitDevice(int device, unsigned int, unsigned int) {
  return is_device(device) ? cudaSuccess : note(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int device) {
  if (!is_device(device)) return note(cudaErrorInvalidDevice);
  const DeviceModel& model = Simulator::instance().model();
  std::memset(prop, 0, sizeof *prop);
  std::snprintf(prop->name, sizeof prop->name, "%s", model.name.c_str());
  write_uuid(device, prop->uuid.bytes);
  prop->totalGlobalMem = static_cast<std::size_t>(Simulator::instance().use(device).capacity.value);
  prop->major = model.major;
  prop->minor = model.minor;
  prop->multiProcessorCount = model.multiprocessors;
  prop->pciBusID = device + 1;
  prop->memoryBusWidth = model.memory_bus_bits;
  prop->l2CacheSize = model.l2_bytes;
  prop->persistingL2CacheMaxSize = model.l2_bytes / 8 * 5;
  fill_limits(*prop, model);
  fill_abilities(*prop, model);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!is_device(device)) return note(cudaErrorInvalidDevice);
  const auto answer =
      device_attribute(Simulator::instance().model(), device, static_cast<int>(attribute));
  if (!answer) {
    report_unimplemented(("cudaDeviceGetAttribute(" + std::to_string(attribute) + ")").c_str());
    return note(cudaErrorNotSupported);
  }
  *value = *answer;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
  if (!is_device(device)) return note(cudaErrorInvalidDevice);
  std::snprintf(id, static_cast<std::size_t>(length), "0000:%02X:00.0", device + 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = kLeastPriority;
  if (greatest != nullptr) *greatest = kGreatestPriority;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t error = do_unsafe(); error != cudaSuccess) return error;
  ++Simulator::instance().counters().device_synchronizations;
  timeline().hold_host(timeline().end_of_device(current_device()));
  return cudaSuccess;
}

cudaError_t cudaDeviceReset() { return cudaSuccess; }

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  if (!is_device(device) || !is_device(peer)) return note(cudaErrorInvalidDevice);
  *can = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int, unsigned int) {
  return note(cudaErrorPeerAccessUnsupported);
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

}  // extern "C"
