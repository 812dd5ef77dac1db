// torch.cuda.memory_stats(): upstream's numbers, with the arena's tensors in place of the arena.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <array>
#include <cstdint>
#include <mutex>

#include "allocator/base/units.h"

namespace ebbtide {

// Upstream takes the pieces that an arena consists of for allocated blocks. Here they are none: what lives in them is
// allocated, what is idle in them is an inactive split, and all of it stays reserved. Sums are exact at any time. So
// is the peak of allocated bytes, but for small tensors of upstream that came and went between two blocks of the
// arena: then it is the least that it can have been. Peaks of the other numbers are those seen when this one rose,
// and when somebody asked.
//
// Thread-safe; takes upstream's lock with its own. Before the first piece it is upstream's word for word.
class TorchCudaStatistics {
 public:
  using Stats = c10::cuda::CUDACachingAllocator::DeviceStats;

  TorchCudaStatistics(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream, int device)
      : upstream_(upstream), device_(static_cast<c10::DeviceIndex>(device)) {}

  // A block of the arena begins and ends; `size` as requested.
  void placed(Bytes size) noexcept;
  void released(Bytes size) noexcept;
  // Upstream served a large block.
  void note_upstream(Bytes size) noexcept;

  // Nobody may see a piece counted twice: hold while one is taken from upstream or given back, and tell.
  std::unique_lock<std::mutex> hold();
  void piece_taken(Bytes size);
  void piece_returned(Bytes size);

  // A failure of upstream that the program did not get to see.
  void hide_out_of_memory();

  // `gaps`: idle stretches between and after the arena's blocks.
  Stats read(std::int64_t gaps);
  // Allocated bytes and reserved bytes at this moment.
  struct Totals { std::size_t allocated = 0, reserved = 0; };
  Totals totals();
  void reset_peaks();
  void reset_accumulated(std::int64_t gaps);

 private:
  using Stat = c10::CachingAllocator::Stat;
  static constexpr std::size_t kCorrected = 7;  // kinds of numbers
  static constexpr std::size_t kTypes = 2;      // all, and the large pool

  Stats merged() const;
  void sample();
  bool may_be_peak() const;

  c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream_;
  const c10::DeviceIndex device_;
  std::mutex lock_;  // guards what follows
  bool in_use_ = false;
  Stat blocks_, bytes_, requested_, oversize_;           // of the arena's tensors
  Stat pieces_, piece_bytes_, oversize_pieces_;          // of what upstream gave for them
  std::array<std::array<std::int64_t, kTypes>, kCorrected> peaks_{};
  std::int64_t upstream_bytes_ = 0;      // allocated upstream without the pieces, as far as known
  std::int64_t upstream_peak_ = 0;       // upstream's own peak at the last look
  std::int64_t lowest_ = 0;              // bytes_ at its lowest since then
  std::int64_t gaps_at_reset_ = 0;
  std::int64_t last_gaps_ = 0;
  std::int64_t hidden_failures_ = 0;
};

}  // namespace ebbtide
