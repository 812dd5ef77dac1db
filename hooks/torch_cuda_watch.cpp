#include "hooks/torch_cuda_watch.h"

#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>

#include <exception>

#include "hooks/torch_backward.h"
#include "hooks/torch_cuda_out_of_memory.h"

namespace ebbtide {
namespace {

EventRecord record_of(Action action, std::int64_t bytes, std::uint64_t address, int device) {
  EventRecord event;
  event.action = action;
  event.bytes = bytes;
  event.address = address;
  event.device = static_cast<std::int8_t>(device);
  return event;
}

}  // namespace

thread_local int TorchCudaWatch::Pieces::depth_ = 0;

TorchCudaWatch::TorchCudaWatch(EventSink& sink) : sink_(sink), is_in_backward_(find_backward_probe()) {}

void TorchCudaWatch::attach(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream) {
  OutOfMemoryRelay::note_listener();
  upstream.attachAllocatorTraceTracker([this](const Entry& entry) { note(entry); });
}

void TorchCudaWatch::note(const Entry& entry) noexcept {
  EventRecord event = record_of(Action::kUpstreamAllocate, static_cast<std::int64_t>(entry.size_), entry.addr_, entry.device_);
  event.stream = reinterpret_cast<std::uintptr_t>(entry.stream_);
  switch (entry.action_) {
    case Entry::ALLOC:
      if (Pieces::is_on()) return;
      event.detail = is_in_backward_ != nullptr && is_in_backward_() ? kInBackward : 0;
      break;
    case Entry::FREE_REQUESTED:
      if (Pieces::is_on()) return;
      event.action = Action::kUpstreamFree;
      break;
    case Entry::SEGMENT_ALLOC:
    case Entry::SEGMENT_MAP:
      event.action = Action::kSegmentTaken;
      event.detail = entry.action_ == Entry::SEGMENT_MAP ? 1 : 0;
      break;
    case Entry::SEGMENT_FREE:
    case Entry::SEGMENT_UNMAP:
      event.action = Action::kSegmentGivenBack;
      break;
    case Entry::OOM:
      if (OutOfMemoryRelay::Quiet::is_on()) return;
      event.action = Action::kOutOfMemory;
      break;
    default:
      return;
  }
  sink_.record(event);
  if (event.action == Action::kSegmentTaken || event.action == Action::kSegmentGivenBack) record_device_used(sink_, entry.device_);
}

void TorchCudaWatch::note_failure(Bytes asked, int device) noexcept {
  std::size_t free = 0;
  std::size_t total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return;
  sink_.record(record_of(Action::kOutOfMemory, asked.value, free, device));
}

void record_device_used(EventSink& sink, int device) noexcept {
  try {
    const c10::cuda::OptionalCUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    if (c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None) return;
    std::size_t free = 0;
    std::size_t total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) return;
    sink.record(record_of(Action::kDeviceUsed, static_cast<std::int64_t>(total - free), total, device));
  } catch (const std::exception&) {
    // A device that does not answer leaves a gap in the trace, and no more.
  }
}

}  // namespace ebbtide
