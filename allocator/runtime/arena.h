// The planned segment: an address range, the blocks live in it, and what must be waited for before a
// place is used again.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "allocator/device/arena_range.h"
#include "allocator/device/stream_fences.h"
#include "allocator/runtime/block_table.h"

namespace ebbtide {

// Owns its range. Guarded by the engine's lock, except grow_to and shrink_to, which make driver calls
// and are serialised by the engine's growth lock instead.
//
// Reuse across streams: a block that other streams used too leaves an event of each behind; whoever
// gets one of its bytes next has the arena's stream wait for them on the device, never on the host.
//
// Invariants: (1) BlockTable's; (2) every place handed out is inside the extent.
class Arena {
 public:
  Arena(std::unique_ptr<ArenaRange> range, StreamFences& fences) : range_(std::move(range)), fences_(fences) {}

  bool is_free(Offset offset, Bytes size) const { return blocks_.is_free(offset, size); }
  // False, and nothing changes, where a block holds a byte of the place. Bytes above the extent must be made usable (grow_to)
  // before they are handed out.
  bool try_place(Offset offset, const BlockRecord& block, StreamId stream) {
    if (!blocks_.try_insert(offset, block)) [[unlikely]] return false;
    if (!pending_.empty()) [[unlikely]] wait_for_pending(offset, offset + block.size, stream);
    return true;
  }
  // Requires: is_free.
  void place(Offset offset, const BlockRecord& block, StreamId stream) {
    blocks_.insert(offset, block);
    if (!pending_.empty()) wait_for_pending(offset, offset + block.size, stream);
  }
  // Frees the block that begins at `offset`, which can be read until the next place(); null if there is none.
  [[gnu::hot]] const Block* release(Offset offset);
  const Block* holder(Offset offset, Bytes size) const { return blocks_.holder(offset, size); }
  Block* find(Offset offset) { return blocks_.find(offset); }
  std::optional<Offset> lowest_gap(Bytes size, Bytes alignment,
                                   const std::vector<BlockTable::Range>& avoid) const {
    return lowest_gap_below(extent_, size, alignment, avoid);
  }
  // The same where the arena may grow up to `height`.
  std::optional<Offset> lowest_gap_below(Bytes height, Bytes size, Bytes alignment,
                                         const std::vector<BlockTable::Range>& avoid) const {
    return blocks_.lowest_gap(size, alignment, Offset{height.value}, avoid);
  }
  // The tightest gap below the highest block; without one, above it, where the arena may have to grow.
  Offset tightest_place(Bytes size, Bytes alignment) const { return blocks_.tightest_place(size, alignment); }

  // First byte; null until there was one. Takes no lock.
  void* base() const { return reinterpret_cast<void*>(published_.begin.load(std::memory_order_relaxed)); }
  void* address(Offset offset) const { return static_cast<char*>(base()) + offset.value; }
  Offset offset_of(const void* address) const {
    return {static_cast<const char*>(address) - static_cast<const char*>(base())};
  }
  // True for addresses inside the extent.
  bool contains(const void* address) const {
    return static_cast<std::uint64_t>(offset_of(address).value) < static_cast<std::uint64_t>(extent_.value);
  }

  // The same without the engine's lock, for the address of a block that is alive, here or anywhere.
  bool owns(const void* address) const {
    const auto asked = reinterpret_cast<std::uintptr_t>(address);
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    do {  // both of one range
      begin = published_.begin.load(std::memory_order_acquire);
      end = published_.end.load(std::memory_order_acquire);
    } while (begin != published_.begin.load(std::memory_order_acquire));
    return begin <= asked && asked < end;
  }

  Bytes extent() const { return extent_; }
  Bytes peak_extent() const { return peak_extent_; }
  // From now on nothing is placed above `kept`; then shrink_to may give that memory back. With the
  // engine's lock.
  void withdraw_to(Bytes kept) {
    extent_ = std::min(extent_, kept);
    publish();
  }
  // Takes over the range's extent after grow_to or shrink_to. With the engine's lock and its growth lock.
  void adopt_extent();

  Status grow_to(Bytes wanted) { return range_->extend_to(wanted); }
  void shrink_to(Bytes kept) { range_->shrink_to(kept); }

  Bytes limit() const { return range_->limit(); }

  const BlockTable& blocks() const { return blocks_; }
  BlockTable& blocks() { return blocks_; }
  const ArenaRange& range() const { return *range_; }
  bool is_valid() const { return blocks_.is_valid() && blocks_.highest_end().value <= peak_extent_.value; }

 private:
  struct Pending {
    Offset begin, end;
    EventId event;
  };

  [[gnu::cold]] void leave_events(Offset offset, const Block& block);
  [[gnu::cold]] void wait_for_pending(Offset begin, Offset end, StreamId stream);
  void publish();

  std::unique_ptr<ArenaRange> range_;
  StreamFences& fences_;
  BlockTable blocks_;
  std::vector<Pending> pending_;
  Bytes extent_;       // as adopted; the range's own may be ahead while growing
  Bytes peak_extent_;
  // Of the extent, for owns(), which every free of every device asks: in a cache line that requests do not write to.
  struct alignas(64) Published {
    std::atomic<std::uintptr_t> begin{0}, end{0};
  };
  Published published_;
};

}  // namespace ebbtide
