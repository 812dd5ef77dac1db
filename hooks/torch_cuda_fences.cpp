#include "hooks/torch_cuda_fences.h"

#include <cuda_runtime_api.h>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

// Makes the device current for its lifetime, without torch's guard: it runs in deleters, which must
// not throw.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    if (cudaGetDevice(&before_) != cudaSuccess) before_ = device;
    if (before_ != device) cudaSetDevice(device);
    device_ = device;
  }
  ~CurrentDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
  int device_ = 0;
};

// A failure that was made up for is nobody else's: torch would report it at its next check.
void forget_error() { static_cast<void>(cudaGetLastError()); }

cudaStream_t handle(StreamId stream) { return reinterpret_cast<cudaStream_t>(stream.value); }

// An event that could not be recorded yet: the stream's handle, marked. Handles and events are even.
constexpr std::uint64_t kNotYet = 1;

bool is_capturing(StreamId stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(handle(stream), &status) == cudaSuccess) return status != cudaStreamCaptureStatusNone;
  forget_error();
  return false;
}

}  // namespace

EventId TorchCudaFences::record(StreamId stream) {
  const CurrentDevice current(device_);
  // In a capture an event would be a part of the graph, and whoever waits for it, too.
  if (is_capturing(stream)) return {stream.value | kNotYet};
  cudaEvent_t event = nullptr;
  cudaError_t status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (status == cudaSuccess) status = cudaEventRecord(event, handle(stream));
  if (status == cudaSuccess) return {reinterpret_cast<std::uint64_t>(event)};
  // Without an event the order can only be had by waiting here; correct before fast.
  EBBTIDE_WARN("cuda:%d: recording an event failed (%s): synchronising instead", device_, cudaGetErrorString(status));
  if (event != nullptr) cudaEventDestroy(event);
  forget_error();
  cudaStreamSynchronize(handle(stream));
  return {};
}

void TorchCudaFences::wait_and_destroy(StreamId stream, EventId event) {
  if (event.value == 0) return;
  const CurrentDevice current(device_);
  if ((event.value & kNotYet) != 0) {
    event = record({event.value & ~kNotYet});
    if (event.value == 0) return;
    if ((event.value & kNotYet) != 0) {
      // Requests come here from the arena, which serves none while torch captures.
      EBBTIDE_WARN("cuda:%d: a stream that is captured outside of torch used freed memory: its order is not known", device_);
      return;
    }
  }
  const auto waited = reinterpret_cast<cudaEvent_t>(event.value);
  const cudaError_t status = cudaStreamWaitEvent(handle(stream), waited, 0);
  if (status != cudaSuccess) {
    EBBTIDE_WARN("cuda:%d: waiting for an event failed (%s): synchronising instead", device_, cudaGetErrorString(status));
    forget_error();
    cudaEventSynchronize(waited);
  }
  cudaEventDestroy(waited);
}

}  // namespace ebbtide
