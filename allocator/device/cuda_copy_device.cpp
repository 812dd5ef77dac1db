#include "allocator/device/cuda_copy_device.h"

#include <array>
#include <cmath>
#include <string>

#include "allocator/base/log.h"
#include "allocator/device/memory_node.h"

namespace ebbtide {
namespace {

using Handle = void*;

Handle handle(std::uint64_t value) { return reinterpret_cast<Handle>(value); }
std::uint64_t number(Handle value) { return reinterpret_cast<std::uint64_t>(value); }

// Makes a device current for its lifetime.
class CurrentDevice {
 public:
  CurrentDevice(const CudaRuntime& runtime, int device) : runtime_(runtime), device_(device) {
    if (runtime.get_device(&before_) != CudaRuntime::kSuccess) before_ = device;
    if (before_ != device) runtime.set_device(device);
  }
  ~CurrentDevice() {
    if (before_ != device_) runtime_.set_device(before_);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  const CudaRuntime& runtime_;
  const int device_;
  int before_ = 0;
};

}  // namespace

Result<std::unique_ptr<CopyDevice>> CudaCopyDevice::open(int device) {
  const Result<const CudaRuntime*> runtime = CudaRuntime::find();
  if (!runtime.ok()) return runtime.error();
  int count = 0;
  if (runtime.value()->get_device_count(&count) != CudaRuntime::kSuccess) {
    runtime.value()->get_last_error();
    count = 0;
  }
  if (device < 0 || device >= count) {
    return Error{ErrorCode::kUnsupported, "there is no CUDA device " + std::to_string(device) +
                                              ": the runtime has " + std::to_string(count)};
  }
  return std::unique_ptr<CopyDevice>(new CudaCopyDevice(*runtime.value(), device));
}

CudaCopyDevice::CudaCopyDevice(const CudaRuntime& runtime, int device)
    : runtime_(runtime), device_(device) {
  std::array<char, 32> address{};
  if (runtime_.device_get_pci_bus_id(address.data(), static_cast<int>(address.size()), device) ==
      CudaRuntime::kSuccess) {
    numa_node_ = memory_node_of_pci(address.data());
  } else {
    runtime_.get_last_error();
  }
}

Status CudaCopyDevice::status_of(CudaRuntime::Status status, const char* call) const {
  if (status == CudaRuntime::kSuccess) return Nothing{};
  runtime_.get_last_error();  // ours to report: torch must not find it
  const ErrorCode code =
      status == CudaRuntime::kOutOfMemory ? ErrorCode::kOutOfHostMemory : ErrorCode::kSystem;
  return Error{code, "cuda:" + std::to_string(device_) + ": " + call + ": " +
                         runtime_.get_error_string(status) + " (" + std::to_string(status) + ")"};
}

Result<StreamId> CudaCopyDevice::create_stream() {
  const CurrentDevice current(runtime_, device_);
  CudaRuntime::Stream stream = nullptr;
  const Status created =
      status_of(runtime_.stream_create_with_flags(&stream, CudaRuntime::kStreamNonBlocking),
                "cudaStreamCreateWithFlags");
  if (!created.ok()) return created.error();
  return StreamId{number(stream)};
}

void CudaCopyDevice::destroy_stream(StreamId stream) {
  const CurrentDevice current(runtime_, device_);
  for (const Status& status :
       {synchronize(stream),
        status_of(runtime_.stream_destroy(handle(stream.value)), "cudaStreamDestroy")}) {
    if (!status.ok()) EBBTIDE_WARN("%s", status.error().message.c_str());
  }
}

Result<EventId> CudaCopyDevice::create_event() {
  const CurrentDevice current(runtime_, device_);
  CudaRuntime::Event event = nullptr;
  const Status created = status_of(runtime_.event_create(&event), "cudaEventCreate");
  if (!created.ok()) return created.error();
  return EventId{number(event)};
}

void CudaCopyDevice::destroy_event(EventId event) {
  const Status status = status_of(runtime_.event_destroy(handle(event.value)), "cudaEventDestroy");
  if (!status.ok()) EBBTIDE_WARN("%s", status.error().message.c_str());
}

Status CudaCopyDevice::record(EventId event, StreamId stream) {
  const CurrentDevice current(runtime_, device_);
  return status_of(runtime_.event_record(handle(event.value), handle(stream.value)),
                   "cudaEventRecord");
}

Status CudaCopyDevice::wait(StreamId stream, EventId event) {
  const CurrentDevice current(runtime_, device_);
  return status_of(runtime_.stream_wait_event(handle(stream.value), handle(event.value), 0),
                   "cudaStreamWaitEvent");
}

bool CudaCopyDevice::is_done(EventId event) {
  const CudaRuntime::Status status = runtime_.event_query(handle(event.value));
  if (status == CudaRuntime::kNotReady) runtime_.get_last_error();
  return status != CudaRuntime::kNotReady;
}

std::optional<std::int64_t> CudaCopyDevice::elapsed_ns(EventId from, EventId to) {
  float milliseconds = 0;
  const CudaRuntime::Status status =
      runtime_.event_elapsed_time(&milliseconds, handle(from.value), handle(to.value));
  if (status != CudaRuntime::kSuccess) {
    runtime_.get_last_error();
    return std::nullopt;
  }
  return std::llround(static_cast<double>(milliseconds) * 1e6);
}

Status CudaCopyDevice::copy(void* target, const void* source, Bytes bytes, StreamId stream) {
  const CurrentDevice current(runtime_, device_);
  return status_of(runtime_.memcpy_async(target, source, static_cast<std::size_t>(bytes.value),
                                         CudaRuntime::kMemcpyDefault, handle(stream.value)),
                   "cudaMemcpyAsync");
}

Status CudaCopyDevice::synchronize(StreamId stream) {
  const CurrentDevice current(runtime_, device_);
  return status_of(runtime_.stream_synchronize(handle(stream.value)), "cudaStreamSynchronize");
}

Status CudaCopyDevice::pin(void* place, Bytes bytes) {
  const CurrentDevice current(runtime_, device_);
  const Status pinned =
      status_of(runtime_.host_register(place, static_cast<std::size_t>(bytes.value),
                                       CudaRuntime::kHostRegisterPortable),
                "cudaHostRegister");
  if (pinned.ok()) return pinned;
  return Error{ErrorCode::kOutOfHostMemory, pinned.error().message};
}

void CudaCopyDevice::unpin(void* place) {
  const CurrentDevice current(runtime_, device_);
  const Status status = status_of(runtime_.host_unregister(place), "cudaHostUnregister");
  if (!status.ok()) EBBTIDE_WARN("%s", status.error().message.c_str());
}

}  // namespace ebbtide
