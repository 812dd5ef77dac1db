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
// The range is given back piece by piece: of larger ones more would stay for the sake of a small part.
constexpr Bytes kPiece = kGrain;

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
  // Another thread may be growing the range, or giving back what is idle in it.
  const std::lock_guard lock(pieces_lock_);
  Bytes held;
  for (const Part& part : pieces_) held += part.size;
  return held + Bytes{static_cast<std::int64_t>(free)} + unused;
}

Status TorchCudaRange::extend_to(Bytes wanted) {
  if (wanted <= extent_) return Nothing{};
  if (extent_.value > 0 && !grows_in_place()) {
    return Error{ErrorCode::kUnsupported, "upstream does not extend its segments"};
  }
  return take(wanted - extent_, [&] {
    while (extent_ < wanted) {
      const Bytes missing = align_up(wanted - extent_, kGrain);
      if (!add_piece(grows_in_place() ? std::min(missing, kPiece) : missing)) return false;
    }
    return true;
  });
}

Status TorchCudaRange::fill(Span span) {
  const auto in_way = [&] {
    return std::find_if(holes_.begin(), holes_.end(), [&](const Span& hole) { return hole.begin < span.end && span.begin < hole.end; });
  };
  if (in_way() == holes_.end()) return Nothing{};
  return take(span.end - span.begin, [&] {
    for (auto hole = in_way(); hole != holes_.end(); hole = in_way()) {
      if (!add_piece(std::min(hole->end - hole->begin, kPiece))) return false;
    }
    return true;
  });
}

template <typename Step>
Status TorchCudaRange::take(Bytes growth, Step step) {
  if (pools_.is_anything_captured()) return Error{ErrorCode::kUnsupported, "a CUDA graph is being captured"};
  try {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
    const OutOfMemoryRelay::Quiet quiet;  // the request has somewhere else to go
    if (stream() == nullptr) {
      cudaStream_t created = nullptr;
      C10_CUDA_CHECK(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
      stream_.store(created, std::memory_order_release);
    }
    trimmer_.trim_for(growth);
    if (step()) return Nothing{};
    moved_once_ = true;
    return Error{ErrorCode::kUnsupported, "upstream did not extend its segment"};
  } catch (const c10::OutOfMemoryError& error) {
    statistics_.hide_out_of_memory();
    return Error{ErrorCode::kOutOfDeviceMemory, error.what()};
  } catch (const std::exception& error) {
    return Error{ErrorCode::kOutOfDeviceMemory, error.what()};
  }
}

// False when upstream put the piece anywhere but at the end of the range or into a hole.
bool TorchCudaRange::add_piece(Bytes size) {
  size = rounded_by_upstream(size);
  const auto held = statistics_.hold();
  const TorchCudaWatch::Pieces pieces;
  void* address = nullptr;
  {
    const UpstreamCall call;
    address = upstream_.raw_alloc_with_stream(static_cast<std::size_t>(size.value), stream());
  }
  if (extent_.value == 0) base_ = address;
  if (!insert({Bytes{static_cast<const char*>(address) - static_cast<const char*>(base_)}, size})) {
    upstream_.raw_delete(address);
    return false;
  }
  statistics_.piece_taken(size);
  return true;
}

bool TorchCudaRange::insert(Part part) {
  const Bytes end = part.begin + part.size;
  const bool is_on_top = part.begin == extent_;
  const bool fills_hole = std::any_of(holes_.begin(), holes_.end(), [&](const Span& hole) {
    return hole.begin.value <= part.begin.value && end.value <= hole.end.value;
  });
  if (!is_on_top && !fills_hole) return false;
  const std::lock_guard lock(pieces_lock_);
  if (is_on_top) {
    pieces_.push_back(part);
    extent_ = end;
    return true;
  }
  const auto above = std::find_if(pieces_.begin(), pieces_.end(), [&](const Part& other) { return other.begin > part.begin; });
  pieces_.insert(above, part);
  note_pieces();
  return true;
}

// With the lock of the pieces.
void TorchCudaRange::note_pieces() {
  holes_.clear();
  extent_ = {};
  for (const Part& part : pieces_) {
    if (part.begin > extent_) holes_.push_back({Offset{extent_.value}, Offset{part.begin.value}});
    extent_ = part.begin + part.size;
  }
}

std::vector<TorchCudaRange::Piece> TorchCudaRange::pieces_around(const void* address, Bytes size) const {
  const std::lock_guard lock(pieces_lock_);
  const Bytes begin{static_cast<const char*>(address) - static_cast<const char*>(base_)};
  std::vector<Piece> found;
  for (const Part& part : pieces_) {
    if (part.begin < begin + size && begin < part.begin + part.size) found.push_back({byte_at(base_, part.begin), part.size});
  }
  return found;
}

void TorchCudaRange::give_back(std::size_t at) {
  const auto held = statistics_.hold();
  const Part part = pieces_[at];
  upstream_.raw_delete(byte_at(base_, part.begin));
  {
    const std::lock_guard lock(pieces_lock_);
    pieces_.erase(pieces_.begin() + static_cast<std::ptrdiff_t>(at));
    note_pieces();
  }
  statistics_.piece_returned(part.size);
}

void TorchCudaRange::shrink_to(Bytes kept) {
  if (pieces_.empty() || pieces_.back().begin < kept || pools_.is_anything_captured()) return;
  try {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
    // Upstream knows of the private stream only: work on the freed bytes may still run elsewhere.
    C10_CUDA_CHECK(cudaDeviceSynchronize());
    while (!pieces_.empty() && pieces_.back().begin >= kept) give_back(pieces_.size() - 1);
    TorchCudaStatistics::empty_cache_unseen(upstream_);
  } catch (const std::exception& error) {
    EBBTIDE_WARN("cuda:%d: giving back arena memory failed: %s", device_, error.what());
  }
}

void TorchCudaRange::release_inside(const std::vector<Span>& idle, Bytes wanted) {
  if (!grows_in_place() || pools_.is_anything_captured()) return;
  try {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
    C10_CUDA_CHECK(cudaDeviceSynchronize());  // as above
    Bytes given;
    for (const Span& span : idle) {
      for (std::size_t i = pieces_.size(); i-- > 0 && given < wanted;) {
        const Part part = pieces_[i];
        if (part.begin.value < span.begin.value || (part.begin + part.size).value > span.end.value) continue;
        give_back(i);
        given += part.size;
      }
    }
    TorchCudaStatistics::empty_cache_unseen(upstream_);
  } catch (const std::exception& error) {
    EBBTIDE_WARN("cuda:%d: giving back idle arena memory failed: %s", device_, error.what());
  }
}

Bytes TorchCudaRange::reserved() const {
  return {upstream_.getDeviceStats(static_cast<c10::DeviceIndex>(device_)).reserved_bytes[kAggregate].current};
}

Bytes TorchCudaRange::peak_reserved() const { return statistics_.peak_reserved(); }

}  // namespace ebbtide
