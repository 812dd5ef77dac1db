// The few NVML functions that torch asks for, and those of programs that log what a device does. NVML's
// header is not in torch's packages, so the few types are written out; anything else of NVML is absent, which callers treat as "not there".
#include <cstdio>
#include <cstring>

#include "dryrun/core/simulator.h"

namespace {

constexpr int kSuccess = 0;
constexpr int kInvalidArgument = 2;
constexpr int kNotSupported = 3;

struct Memory {
  unsigned long long total, free, used;
};

struct MemoryV2 {
  unsigned int version;
  unsigned long long total, reserved, free, used;
};

struct Utilization {
  unsigned int gpu, memory;
};

using Device = void*;
char device_objects[64];

int index_of(Device device) {
  return static_cast<int>(static_cast<char*>(device) - device_objects);
}

bool is_device(int index) {
  return index >= 0 && index < ebbtide::dryrun::Simulator::instance().device_count();
}

}  // namespace

extern "C" {

int nvmlInit_v2() { return kSuccess; }
int nvmlInitWithFlags(unsigned int) { return kSuccess; }
int nvmlShutdown() { return kSuccess; }
const char* nvmlErrorString(int code) {
  return code == kSuccess        ? "Success"
         : code == kNotSupported ? "Not Supported"
                                 : "Invalid Argument";
}
int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = static_cast<unsigned int>(ebbtide::dryrun::Simulator::instance().device_count());
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device* device) {
  if (!is_device(static_cast<int>(index))) return kInvalidArgument;
  *device = &device_objects[index];
  return kSuccess;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, Device* device) {
  unsigned int domain = 0;
  unsigned int bus = 0;
  if (std::sscanf(id, "%x:%x", &domain, &bus) != 2 || !is_device(static_cast<int>(bus) - 1)) {
    return kInvalidArgument;
  }
  *device = &device_objects[bus - 1];
  return kSuccess;
}
int nvmlDeviceGetName(Device, char* name, unsigned int length) {
  std::snprintf(name, length, "%s", ebbtide::dryrun::Simulator::instance().model().name.c_str());
  return kSuccess;
}
int nvmlDeviceGetUUID(Device device, char* uuid, unsigned int length) {
  std::snprintf(uuid, length, "GPU-ebbtide-dryrun-%d", index_of(device));
  return kSuccess;
}
int nvmlDeviceGetMemoryInfo(Device device, Memory* memory) {
  const auto use = ebbtide::dryrun::Simulator::instance().use(index_of(device));
  memory->total = static_cast<unsigned long long>(use.capacity.value);
  memory->used = static_cast<unsigned long long>(use.used.value);
  memory->free = memory->total - memory->used;
  return kSuccess;
}
int nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2* memory) {
  Memory plain{};
  nvmlDeviceGetMemoryInfo(device, &plain);
  memory->total = plain.total;
  memory->reserved = 0;
  memory->free = plain.free;
  memory->used = plain.used;
  return kSuccess;
}
// For programs that log it: a device that is always at work.
int nvmlDeviceGetUtilizationRates(Device device, Utilization* utilization) {
  const auto use = ebbtide::dryrun::Simulator::instance().use(index_of(device));
  utilization->gpu = 100;
  utilization->memory = static_cast<unsigned int>(100 * use.used.value / use.capacity.value);
  return kSuccess;
}
int nvmlDeviceGetIndex(Device device, unsigned int* index) {
  *index = static_cast<unsigned int>(index_of(device));
  return kSuccess;
}
int nvmlDeviceGetCudaComputeCapability(Device, int* major, int* minor) {
  const auto& model = ebbtide::dryrun::Simulator::instance().model();
  *major = model.major;
  *minor = model.minor;
  return kSuccess;
}
int nvmlSystemGetDriverVersion(char* version, unsigned int length) {
  std::snprintf(version, length, "ebbtide-dryrun");
  return kSuccess;
}
// What a simulated device has none of.
int nvmlDeviceGetTemperature(Device, int, unsigned int*) { return kNotSupported; }
int nvmlDeviceGetPowerUsage(Device, unsigned int*) { return kNotSupported; }
int nvmlDeviceGetEnforcedPowerLimit(Device, unsigned int*) { return kNotSupported; }
int nvmlDeviceGetClockInfo(Device, int, unsigned int*) { return kNotSupported; }
int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 13000;
  return kSuccess;
}
// torch wants to know which other processes fill the device when memory runs out: none.
int nvmlDeviceGetComputeRunningProcesses(Device, unsigned int* count, void*) {
  *count = 0;
  return kSuccess;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device, unsigned int* count, void*) {
  *count = 0;
  return kSuccess;
}
// No fabric, no links between devices.
int nvmlDeviceGetGpuFabricInfoV(Device, void*) { return kNotSupported; }
int nvmlDeviceGetNvLinkRemoteDeviceType(Device, unsigned int, void*) { return kNotSupported; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device, unsigned int, void*) { return kNotSupported; }
int nvmlDeviceGetP2PStatus(Device, Device, int, void*) { return kNotSupported; }

}  // extern "C"
