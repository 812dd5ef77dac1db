// The driver's devices, contexts and errors.
#include <cstdio>
#include <string>

#include "dryrun/core/capture.h"
#include "dryrun/core/device_attribute.h"
#include "dryrun/driver/status.h"

using namespace ebbtide;
using namespace ebbtide::dryrun;

namespace {

constexpr int kMostDevices = 64;

// One context per device; its address is all there is to it.
CUcontext context_of(int device) {
  static char contexts[kMostDevices];
  return reinterpret_cast<CUcontext>(&contexts[device]);
}

int device_of(CUcontext context) {
  for (int i = 0; i < Simulator::instance().device_count(); ++i) {
    if (context_of(i) == context) return i;
  }
  return -1;
}

}  // namespace

extern "C" {

CUresult cuInit(unsigned int) {
  return Simulator::instance().device_count() > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
CUresult cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) {
  *count = Simulator::instance().device_count();
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (!is_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<std::size_t>(length), "%s", Simulator::instance().model().name.c_str());
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  write_uuid(device, uuid->bytes);
  return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem(std::size_t* size, CUdevice device) {
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *size = static_cast<std::size_t>(Simulator::instance().use(device).capacity.value);
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  const auto answer =
      device_attribute(Simulator::instance().model(), device, static_cast<int>(attribute));
  if (!answer) {
    report_unimplemented(("cuDeviceGetAttribute(" + std::to_string(attribute) + ")").c_str());
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  *value = *answer;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(id, static_cast<std::size_t>(length), "0000:%02X:00.0", device + 1);
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *context = context_of(device);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int* flags, int* active) {
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  if (flags != nullptr) *flags = 0;
  *active = 1;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = context_of(current_device());
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext context) {
  const int device = device_of(context);
  if (device >= 0) current_device() = device;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice* device) {
  *device = current_device();
  return CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() {
  if (Captures::instance().do_unsafe() != CaptureError::kNone) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  Simulator& simulator = Simulator::instance();
  ++simulator.counters().device_synchronizations;
  simulator.timeline().hold_host(simulator.timeline().end_of_device(current_device()));
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char** name) {
  *name = error == CUDA_SUCCESS               ? "CUDA_SUCCESS"
          : error == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == CUDA_ERROR_INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE"
          : error == CUDA_ERROR_NOT_SUPPORTED ? "CUDA_ERROR_NOT_SUPPORTED"
                                              : "CUDA_ERROR_UNKNOWN";
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = error == CUDA_SUCCESS               ? "no error"
          : error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory"
          : error == CUDA_ERROR_INVALID_VALUE ? "invalid argument"
          : error == CUDA_ERROR_NOT_SUPPORTED ? "operation not supported by the simulated device"
                                              : "unknown error";
  return CUDA_SUCCESS;
}

CUresult cuGetProcAddress(const char* symbol, void** function, int, cuuint64_t,
                          CUdriverProcAddressQueryResult* status) {
  *function = ebbtide_dryrun_driver_function(symbol);
  const bool found = *function != nullptr;
  if (status != nullptr) {
    *status = found ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  }
  return found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

// The private tables that other CUDA libraries ask for do not exist: those libraries then say that
// there is no usable driver.
CUresult cuGetExportTable(const void** table, const CUuuid*) {
  *table = nullptr;
  return CUDA_ERROR_NOT_FOUND;
}

// Called by the generated stand-ins of everything that is not simulated.
int ebbtide_dryrun_refuse_cuda(const char* function) {
  report_unimplemented(function);
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // extern "C"
