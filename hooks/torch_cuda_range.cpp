#include "hooks/torch_cuda_range.h"

#include <c10/core/AllocatorConfig.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <bit>
#include <exception>

#include "allocator/base/log.h"
#include "hooks/torch_cuda_out_of_memory.h"
#include "hooks/torch_cuda_upstream_call.h"
#include "hooks/torch_cuda_watch.h"

namespace ebbtide {
namespace {

constexpr Bytes kGrain = TorchCudaRange::kPage;
// The range is given back piece by piece.
constexpr Bytes kPiece{3 * kGrain.value};

// What upstream makes of a size where roundup_power2_divisions is set: a piece is to be as large as it counts.
Bytes rounded_by_upstream(Bytes size) {
  const auto bytes = static_cast<std::size_t>(size.value);
  const std::size_t divisions = c10::CachingAllocator::AcceleratorAllocatorConfig::roundup_power2_divisions(bytes);
  if (divisions <= 1) return size;
  return align_up(size, Bytes{static_cast<std::int64_t>(std::max<std::size_t>(std::bit_floor(bytes) / divisions, 1))});
}

char* byte_at(void* base, Bytes offset) { return static_cast<char*>(base) + offset.value; }

}  // namespace

bool TorchCudaRange::grows_in_place() const {
  return !moved_once_ && c10::CachingAllocator::AcceleratorAllocatorConfig::use_expandable_segments();
}

Bytes TorchCudaRange::limit() const {
  std::size_t free = 0;
  std::size_t total = 0;
  const c10::cuda::OptionalCUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return extent_;
  const auto stats = upstream_.getDeviceStats(static_cast<c10::DeviceIndex>(device_));
  const Bytes unused{stats.reserved_bytes[kAggregate].current - stats.active_bytes[kAggregate].current};
  return extent_ + Bytes{static_cast<std::int64_t>(free)} + unused;
}

Status TorchCudaRange::extend_to(Bytes wanted) {
  if (wanted <= extent_) return Nothing{};
  if (pools_.is_anything_captured()) return Error{ErrorCode::kUnsupported, "a CUDA graph is being captured"};
  if (extent_.value > 0 && !grows_in_place()) {
    return Error{ErrorCode::kUnsupported, "upstream does not extend its segments"};
  }
  try {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
    const OutOfMemoryRelay::Quiet quiet;  // the request has somewhere else to go
    if (stream() == nullptr) {
      cudaStream_t created = nullptr;
      C10_CUDA_CHECK(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
      stream_.store(created, std::memory_order_release);
    }
    trimmer_.trim_for(wanted - extent_);
    while (extent_ < wanted) {
      const Bytes missing = align_up(wanted - extent_, kGrain);
      if (!add_piece(grows_in_place() ? std::min(missing, kPiece) : missing)) {
        moved_once_ = true;
        return Error{ErrorCode::kUnsupported, "upstream did not extend its segment"};
      }
    }
  } catch (const c10::OutOfMemoryError& error) {
    statistics_.hide_out_of_memory();
    return Error{ErrorCode::kOutOfDeviceMemory, error.what()};
  } catch (const std::exception& error) {
    return Error{ErrorCode::kOutOfDeviceMemory, error.what()};
  }
  return Nothing{};
}

// False when upstream put the piece anywhere but at the end of the range.
bool TorchCudaRange::add_piece(Bytes size) {
  size = rounded_by_upstream(size);
  const auto held = statistics_.hold();
  const TorchCudaWatch::Pieces pieces;
  void* address = nullptr;
  {
    const UpstreamCall call;
    address = upstream_.raw_alloc_with_stream(static_cast<std::size_t>(size.value), stream());
  }
  if (extent_.value > 0 && address != byte_at(base_, extent_)) {
    upstream_.raw_delete(address);
    return false;
  }
  statistics_.piece_taken(size);
  if (extent_.value == 0) base_ = address;
  const std::lock_guard lock(pieces_lock_);
  pieces_.push_back(size);
  extent_ += size;
  return true;
}

std::vector<TorchCudaRange::Piece> TorchCudaRange::pieces_around(const void* address, Bytes size) const {
  const std::lock_guard lock(pieces_lock_);
  const Bytes begin{static_cast<const char*>(address) - static_cast<const char*>(base_)};
  std::vector<Piece> found;
  Bytes piece_begin;
  for (const Bytes piece : pieces_) {
    if (piece_begin < begin + size && begin < piece_begin + piece) found.push_back({byte_at(base_, piece_begin), piece});
    piece_begin += piece;
  }
  return found;
}

void TorchCudaRange::shrink_to(Bytes kept) {
  if (pieces_.empty() || extent_ - pieces_.back() < kept || pools_.is_anything_captured()) return;
  try {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
    // Upstream knows of the private stream only: work on the freed bytes may still run elsewhere.
    C10_CUDA_CHECK(cudaDeviceSynchronize());
    while (!pieces_.empty() && extent_ - pieces_.back() >= kept) {
      const auto held = statistics_.hold();
      const Bytes piece = pieces_.back();
      upstream_.raw_delete(byte_at(base_, extent_ - piece));
      {
        const std::lock_guard lock(pieces_lock_);
        extent_ -= piece;
        pieces_.pop_back();
      }
      statistics_.piece_returned(piece);
    }
    TorchCudaStatistics::empty_cache_unseen(upstream_);
  } catch (const std::exception& error) {
    EBBTIDE_WARN("cuda:%d: giving back arena memory failed: %s", device_, error.what());
  }
}

Bytes TorchCudaRange::reserved() const {
  return {upstream_.getDeviceStats(static_cast<c10::DeviceIndex>(device_)).reserved_bytes[kAggregate].current};
}

Bytes TorchCudaRange::peak_reserved() const { return statistics_.peak_reserved(); }

}  // namespace ebbtide
