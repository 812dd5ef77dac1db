// The arena's range on a CUDA device: blocks of torch's own allocator, contiguous on a private stream.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "allocator/device/arena_range.h"
#include "hooks/torch_cuda_pools.h"
#include "hooks/torch_cuda_statistics.h"
#include "hooks/torch_cuda_trimmer.h"

namespace ebbtide {

// With expandable segments upstream, consecutive blocks of a stream that nobody else uses are
// consecutive addresses, so the range grows in place, and pages inside it can be unmapped and mapped again; without them it is one block. Taken from upstream
// and not from the driver, so that statistics, memory fractions, peer access and NCCL's registration of
// segments go on working.
//
// Before it grows, what upstream has cached and does not use is given back, so that the device never
// holds the same bytes twice. That synchronises, and happens only while the arena grows. While a CUDA graph is captured
// the range stays as it is.
class TorchCudaRange final : public ArenaRange {
 public:
  TorchCudaRange(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream, int device,
                 TorchCudaStatistics& statistics, TorchCudaPools& pools)
      : upstream_(upstream), device_(device), statistics_(statistics), pools_(pools), trimmer_(upstream, device) {}

  void* base() const override { return base_; }
  Bytes extent() const override { return extent_; }
  bool grows_in_place() const override;
  Bytes limit() const override;
  Status extend_to(Bytes wanted) override;
  void shrink_to(Bytes kept) override;
  Bytes reserved() const override;
  Bytes peak_reserved() const override;
  std::int64_t upstream_trims() const override { return trimmer_.count(); }
  const std::vector<Span>& holes() const override { return holes_; }
  // Synchronises and unmaps, like an allocation retry of upstream.
  void release_inside(const std::vector<Span>& idle, Bytes wanted) override;
  // Upstream maps what it has given back from the lowest address on: holes below the span are filled, too.
  Status fill(Span span) override;

  // Upstream maps expandable segments in pages of this size.
  static constexpr Bytes kPage{20 * kMiB.value};
  // The pieces that [address, address + size) lies in, in order. Thread-safe while the block there is alive, because pieces
  // under live blocks stay.
  struct Piece {
    void* begin;
    Bytes size;
  };
  std::vector<Piece> pieces_around(const void* address, Bytes size) const;

  // Upstream knows the range's pieces by this stream; null before the first growth.
  cudaStream_t stream() const { return stream_.load(std::memory_order_acquire); }

 private:
  // Places that upstream handed out as one.
  struct Part {
    Bytes begin;
    Bytes size;
  };

  // Has `step` take pieces, and turns what upstream throws into an error.
  template <typename Step>
  Status take(Bytes growth, Step step);
  bool add_piece(Bytes size);
  bool insert(Part part);
  void give_back(std::size_t at);
  void note_pieces();

  c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream_;
  const int device_;
  TorchCudaStatistics& statistics_;
  TorchCudaPools& pools_;
  TorchCudaTrimmer trimmer_;
  std::atomic<cudaStream_t> stream_{nullptr};  // private; asked for by snapshots, too
  void* base_ = nullptr;
  Bytes extent_;
  std::vector<Span> holes_;         // what no piece covers below extent_
  mutable std::mutex pieces_lock_;  // guards pieces_; innermost
  std::vector<Part> pieces_;        // the upstream blocks, sorted and disjoint; the last one ends at extent_
  bool moved_once_ = false;        // a piece was not contiguous: upstream does not extend segments
};

}  // namespace ebbtide
