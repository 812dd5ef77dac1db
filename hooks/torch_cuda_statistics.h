// torch.cuda.memory_stats(): upstream's numbers, with the arena's tensors in place of the arena.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "allocator/base/biased_lock.h"
#include "allocator/base/quick_lock.h"
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
// Thread-safe; takes upstream's lock with its own. The engine tells of the arena's blocks one at a time with a lock that it has
// anyway: most take none beside it. Before the first piece it is upstream's word for word.
class TorchCudaStatistics {
 public:
  using Stats = c10::cuda::CUDACachingAllocator::DeviceStats;

  TorchCudaStatistics(c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream, int device)
      : upstream_(upstream), device_(static_cast<c10::DeviceIndex>(device)) {}

  // The lock of the engine that tells. Called before anything else, but for live().
  void stand_beside(QuickLock& engines) { lock_.stand_beside(engines); }

  // A block of the arena begins and ends; `size` as requested. With the engine's lock.
  void placed(Bytes size) noexcept;
  void released(Bytes size) noexcept;
  // Upstream served a large block; one of those goes. These mostly take no lock.
  void note_upstream(Bytes size) noexcept {
    if (!in_use_.load(std::memory_order_relaxed)) return;
    const std::int64_t allocated = estimate_.add(size);
    if (lock_.is_entered()) wait_until_left();
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
  // Bytes that are or were allocated, and that were reserved at most. With the engine's lock.
  LiveTotals live();
  Bytes peak_reserved();

 private:
  using Stat = c10::CachingAllocator::Stat;
  // What torch's has but for a peak, which is none of its own here. One number is added to at a time: two side by side
  // would be written as one, and waited for where the next call reads another two.
  struct Flow {
    std::int64_t allocated = 0, freed = 0;
    std::int64_t before = 0;  // current when these began

    std::int64_t current() const { return before + allocated - freed; }
    void increase(std::int64_t by) { allocated += by; }
    void decrease(std::int64_t by) { freed += by; }
    void reset_accumulated() { *this = {0, 0, current()}; }
  };
  static void exchange(Stat& stat, const Flow& out, const Flow& in);
  static void add_idle(Stat& stat, const Flow& pieces, const Flow& blocks);
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
  // With the engine's lock: whether so much more can be noted with that alone.
  bool is_plain(Bytes more) const {
    return lock_.is_open() && !is_still_ && estimate_.value() + more.value <= room_.load(std::memory_order_relaxed);
  }
  // Told of the size once more: what is put together on the way would have to stay in memory for them.
  [[gnu::cold, gnu::noinline]] void place_looking(Bytes size, bool is_oversize) noexcept;
  [[gnu::cold, gnu::noinline]] void release_looking(Bytes size, bool is_oversize) noexcept;
  void wait_until_left() const;
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
  void note_unseen(Unseen& unseen, std::size_t kind, const Stats& upstream, const Flow& of_arena);
  void note_room();
  // The same where nothing has changed but what is in the arena: so much less.
  void give_room(Bytes more) { room_.store(room_.load(std::memory_order_relaxed) + more.value, std::memory_order_relaxed); }
  bool may_be_peak() const;

  c10::cuda::CUDACachingAllocator::CUDAAllocator& upstream_;
  const c10::DeviceIndex device_;
  std::atomic<bool> in_use_{false};
  Estimate estimate_;
  std::atomic<std::int64_t> room_{0};    // of the estimate: above it there may be a new peak
  BiasedLock lock_;  // guards what follows; its frequent side is placed() and released()
  bool is_still_ = false;                // nothing in the arena has changed since upstream's peaks were reset
  Flow blocks_, bytes_, requested_, oversize_;           // of the arena's tensors
  Unseen unseen_allocated_, unseen_requested_;
  Flow pieces_, piece_bytes_, oversize_pieces_;          // of what upstream gave for them
  std::array<std::array<std::int64_t, kTypes>, kCorrected> peaks_{};
  Stats folded_;                         // upstream's peaks before it last became still
  std::int64_t gaps_at_reset_ = 0;
  std::int64_t last_gaps_ = 0;
  std::int64_t hidden_failures_ = 0;
  std::int64_t syncs_at_reset_ = 0;      // of hidden_syncs_: upstream's own count began anew then
  inline static std::atomic<std::int64_t> hidden_syncs_{0};
};

}  // namespace ebbtide
