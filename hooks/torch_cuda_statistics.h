// torch.cuda.memory_stats(): upstream's numbers, with the arena's tensors in place of the arena.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "allocator/base/biased_lock.h"
#include "allocator/base/units.h"
#include "allocator/runtime/arena_observer.h"

namespace ebbtide {

inline constexpr std::size_t kAggregate = 0;  // in torch's numbers: of the small pool and the large one together

// Upstream takes the pieces that an arena consists of for allocated blocks. Here they are none: what lives in them is
// allocated, what is idle in them is an inactive split, and all of it stays reserved. Sums are exact at any time. So
// are the peaks of allocated and of requested bytes, but for small tensors of upstream that came and went between two
// blocks of the arena: then they are the least that they can have been. Peaks of the other numbers are those seen when
// allocated bytes rose, and when somebody asked.
//
// While nothing in the arena changes, upstream's own peak tells everything, and its blocks need not be looked at one by
// one: such a stretch begins when one of them may be a new peak. Upstream's peaks are reset then and kept here.
//
// Thread-safe; takes upstream's lock with its own. Of the arena's blocks, whose engine tells of them one at a time, most take
// none. Before the first piece it is upstream's word for word.
class TorchCudaStatistics {
 public:
  using Stats = c10::cuda::CUDACachingAllocator::DeviceStats;

  TorchCudaStatistics(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream, int device)
      : upstream_(upstream), device_(static_cast<c10::DeviceIndex>(device)) {}

  // A block of the arena begins and ends; `size` as requested. One call of either at a time: with the engine's lock.
  void placed(Bytes size) noexcept;
  void released(Bytes size) noexcept;
  // Upstream served a large block; one of those goes. These mostly take no lock.
  void note_upstream(Bytes size) noexcept {
    if (!in_use_.load(std::memory_order_relaxed)) return;
    const std::int64_t allocated = estimate_.add(size);
    lock_.wait_until_left();
    if (allocated > room_.load(std::memory_order_relaxed)) look();
  }
  void forget_upstream(Bytes size) noexcept {
    if (in_use_.load(std::memory_order_relaxed)) estimate_.remove(size);
  }

  // Nobody may see a piece counted twice: hold while one is taken from upstream or given back, and tell.
  std::unique_lock<BiasedLock> hold();
  void piece_taken(Bytes size);
  void piece_returned(Bytes size);

  // A failure of upstream that the program did not get to see.
  void hide_out_of_memory();
  // Has upstream give back what it has cached, on all devices, and hides that each counts a synchronisation for it: the
  // program did not ask.
  static void empty_cache_unseen(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream);

  // `gaps`: idle stretches between and after the arena's blocks.
  Stats read(std::int64_t gaps);
  // Allocated bytes and reserved bytes at this moment.
  struct Totals { std::size_t allocated = 0, reserved = 0; };
  Totals totals();
  void reset_peaks();
  void reset_accumulated(std::int64_t gaps);
  // Bytes that are or were allocated, and that were reserved at most.
  LiveTotals live();
  Bytes peak_reserved();

 private:
  using Stat = c10::CachingAllocator::Stat;
  // Upstream's own: what a block takes, and so what memory_allocated() counts.
  static constexpr Bytes kBlockGrain{512};
  static constexpr std::size_t kCorrected = 7;  // kinds of numbers
  static constexpr std::size_t kTypes = 2;      // all, and the large pool

  // What is allocated upstream without the pieces: at least the truth, but for small tensors. Added to without a lock;
  // the truth is looked up between begin_look() and end_look().
  class Estimate {
   public:
    std::int64_t add(Bytes size) {
      const std::int64_t change = align_up(size, kBlockGrain).value + slack(size);
      const std::int64_t added = added_.fetch_add(change, std::memory_order_seq_cst) + change;  // see note_upstream
      return correction_.load(std::memory_order_relaxed) + added - removed_.load(std::memory_order_relaxed);
    }
    void remove(Bytes size) { removed_.fetch_add(align_up(size, kBlockGrain).value, std::memory_order_relaxed); }
    std::int64_t value() const {
      return correction_.load(std::memory_order_relaxed) + added_.load(std::memory_order_seq_cst) -
             removed_.load(std::memory_order_relaxed);
    }
    void begin_look() { added_before_ = added_.load(std::memory_order_acquire); }
    // What was added meanwhile counts (perhaps twice); what was removed meanwhile does not.
    void end_look(std::int64_t truth) {
      correction_.store(truth - added_before_ + removed_.load(std::memory_order_acquire), std::memory_order_relaxed);
    }

   private:
    static std::int64_t slack(Bytes size);

    std::atomic<std::int64_t> added_{0}, removed_{0}, correction_{0};
    std::int64_t added_before_ = 0;
  };

  // Of one block of the arena.
  struct Block {
    Bytes requested, rounded;
    bool is_oversize = false;
  };
  static Block block_of(Bytes size, bool may_be_oversize);
  // False when it cannot be done without the lock.
  bool try_place(const Block& block);
  bool try_release(const Block& block);
  void add(const Block& block);
  void remove(const Block& block);
  Stats merged(const Stats& upstream) const;
  void look() noexcept;
  Stats sample();
  void begin_still();
  void end_still();
  // Upstream's own peak of a number at the last look, and the arena's part of the number at its lowest since.
  struct Unseen {
    std::int64_t upstream_peak = 0, lowest = 0;
  };
  void note_unseen(Unseen& unseen, std::size_t kind, const Stats& upstream, const Stat& of_arena);
  void note_room();
  bool may_be_peak(Bytes more = {}) const;

  c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream_;
  const c10::DeviceIndex device_;
  std::atomic<bool> in_use_{false};
  Estimate estimate_;
  std::atomic<std::int64_t> room_{0};    // of the estimate: above it there may be a new peak
  BiasedLock lock_;  // guards what follows; its frequent side is placed() and released()
  Stat blocks_, bytes_, requested_, oversize_;           // of the arena's tensors
  Stat pieces_, piece_bytes_, oversize_pieces_;          // of what upstream gave for them
  std::array<std::array<std::int64_t, kTypes>, kCorrected> peaks_{};
  bool is_still_ = false;                // nothing in the arena has changed since upstream's peaks were reset
  Stats folded_;                         // upstream's peaks before that
  Unseen unseen_allocated_, unseen_requested_;
  std::int64_t gaps_at_reset_ = 0;
  std::int64_t last_gaps_ = 0;
  std::int64_t hidden_failures_ = 0;
  std::int64_t syncs_at_reset_ = 0;      // of hidden_syncs_: upstream's own count began anew then
  inline static std::atomic<std::int64_t> hidden_syncs_{0};
};

}  // namespace ebbtide
