#include "hooks/torch_cuda_pools.h"

#include <c10/cuda/CUDAGraphsC10Utils.h>

#include <algorithm>
#include <utility>

namespace ebbtide {
namespace {

// Whether the stream captures; where the driver does not say, it might.
bool captures(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status) == cudaSuccess) return status != cudaStreamCaptureStatusNone;
  static_cast<void>(cudaGetLastError());  // nobody else's
  return true;
}

// A capture's number is never used twice; 0: none, or not known.
unsigned long long capture_of(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long number = 0;
#if CUDART_VERSION >= 13000
  const cudaError_t asked = cudaStreamGetCaptureInfo(stream, &status, &number, nullptr, nullptr, nullptr, nullptr);
#else
  const cudaError_t asked = cudaStreamGetCaptureInfo(stream, &status, &number);
#endif
  if (asked != cudaSuccess) static_cast<void>(cudaGetLastError());
  return asked == cudaSuccess && status != cudaStreamCaptureStatusNone ? number : 0;
}

}  // namespace

void TorchCudaPools::open(Device device, Pool pool, Filter filter, cudaStream_t stream) {
  const std::lock_guard lock(lock_);
  open_.push_back({device, pool, std::move(filter), stream});
  count_.store(open_.size(), std::memory_order_relaxed);
}

void TorchCudaPools::close(Device device, Pool pool) {
  const std::lock_guard lock(lock_);
  const auto last = std::find_if(open_.rbegin(), open_.rend(),
                                 [&](const Open& open) { return open.device == device && open.pool == pool; });
  if (last != open_.rend()) open_.erase(std::next(last).base());
  count_.store(open_.size(), std::memory_order_relaxed);
}

// Only what was seen to be a capture can be told from a pool that some other thread uses.
bool TorchCudaPools::is_over(Open& open) {
  const unsigned long long now = capture_of(open.stream);
  if (open.capture == 0 && now != 0 && open.filter(open.stream)) open.capture = now;
  return open.capture != 0 && open.capture != now;
}

void TorchCudaPools::forget_what_is_over() {
  std::erase_if(open_, [this](Open& open) { return is_over(open); });
  count_.store(open_.size(), std::memory_order_relaxed);
}

bool TorchCudaPools::claims(Device device, cudaStream_t stream) {
  const std::lock_guard lock(lock_);
  forget_what_is_over();
  return std::any_of(open_.begin(), open_.end(), [&](const Open& open) {
    return captures(open.stream) || (open.device == device && open.filter(stream));
  });
}

bool TorchCudaPools::is_capturing() {
  if (!has_any()) return false;
  const std::lock_guard lock(lock_);
  return std::any_of(open_.begin(), open_.end(), [](const Open& open) { return captures(open.stream); });
}

bool TorchCudaPools::is_anything_captured() {
  return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None || is_capturing();
}

}  // namespace ebbtide
