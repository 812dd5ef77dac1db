// The planned segment: an address range, the blocks live in it, and what must be waited for before a
// place is used again.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "allocator/base/spans.h"
#include "allocator/device/arena_range.h"
#include "allocator/device/stream_fences.h"
#include "allocator/runtime/block_table.h"

namespace ebbtide {

// Owns its range. Guarded by the engine's lock, except what makes driver calls (grow_to and its neighbours), which
// and are serialised by the engine's growth lock instead.
//
// Reuse across streams: a block that other streams used too leaves an event of each behind; whoever
// gets one of its bytes next has the arena's stream wait for them on the device, never on the host.
//
// Where others need its memory, what is idle between its blocks is given back: the range has holes then. Whatever looks for a gap
// stays clear of them; a place that was planned is filled before it is handed out.
//
// Invariants: (1) BlockTable's; (2) every place handed out is inside the extent and in no hole.
class Arena {
 public:
  Arena(std::unique_ptr<ArenaRange> range, StreamFences& fences) : range_(std::move(range)), fences_(fences) {}

  bool is_free(Offset offset, Bytes size) const { return blocks_.is_free(offset, size); }
  // False, and nothing changes, where a block holds a byte of the place, or it has none behind one. Bytes above the extent must be
  // made usable (grow_to) before they are handed out.
  bool try_place(Offset offset, const BlockRecord& block, StreamId stream) {
    if (!holes_.empty() && any_meets(holes_, offset, block.size)) [[unlikely]] return false;
    if (!blocks_.try_insert(offset, block)) [[unlikely]] return false;
    if (!pending_.empty()) [[unlikely]] wait_for_pending(offset, offset + block.size, stream);
    return true;
  }
  // Requires: is_free. What is not backed must be made usable before it is handed out.
  void place(Offset offset, const BlockRecord& block, StreamId stream) {
    blocks_.insert(offset, block);
    if (!pending_.empty()) wait_for_pending(offset, offset + block.size, stream);
  }
  // Frees the block that begins at `offset`, which can be read until the next place(); null if there is none.
  [[gnu::hot]] const Block* release(Offset offset);
  const Block* holder(Offset offset, Bytes size) const { return blocks_.holder(offset, size); }
  Block* find(Offset offset) { return blocks_.find(offset); }
  // Whether there is memory behind all of it.
  bool is_backed(Offset offset, Bytes size) const {
    if (offset + size > Offset{extent_.value}) return false;
    return holes_.empty() || !any_meets(holes_, offset, size);
  }
  std::optional<Offset> lowest_gap(Bytes size, Bytes alignment, const std::vector<Span>& avoid) const {
    return lowest_gap_below(extent_, size, alignment, avoid);
  }
  // The same where the arena may grow up to `height`.
  std::optional<Offset> lowest_gap_below(Bytes height, Bytes size, Bytes alignment, const std::vector<Span>& avoid) const {
    return blocks_.lowest_gap(size, alignment, Offset{height.value}, holes_.empty() ? avoid : clear_of_holes(avoid));
  }
  // The tightest gap below the highest block; without one, above it, where the arena may have to grow; but holes are filled first.
  Offset tightest_place(Bytes size, Bytes alignment) const {
    const Offset place = blocks_.tightest_place(size, alignment, holes_);
    if (holes_.empty() || place + size <= Offset{extent_.value}) [[likely]] return place;
    return blocks_.tightest_place(size, alignment);
  }

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
  // Memory that it holds: the extent but for its holes.
  Bytes held() const;
  Bytes peak_extent() const { return peak_extent_; }
  // From now on nothing is placed above `kept`; then shrink_to may give that memory back. With the
  // engine's lock.
  void withdraw_to(Bytes kept) {
    extent_ = std::min(extent_, kept);
    publish();
  }
  // What lies idle between its blocks, the largest first. From now on nothing is placed there, as in holes; then release_inside
  // may give memory there back. With the engine's lock.
  std::vector<Span> withdraw_idle();
  // Takes over the range's extent and its holes after one of the calls below. With the engine's lock and its growth lock.
  void adopt_extent();

  Status grow_to(Bytes wanted) { return range_->extend_to(wanted); }
  Status fill(Span span) { return range_->fill(span); }
  void shrink_to(Bytes kept) { range_->shrink_to(kept); }
  void release_inside(const std::vector<Span>& idle, Bytes wanted) { range_->release_inside(idle, wanted); }

  Bytes limit() const { return range_->limit(); }

  const BlockTable& blocks() const { return blocks_; }
  BlockTable& blocks() { return blocks_; }
  const ArenaRange& range() const { return *range_; }
  bool is_valid() const;

 private:
  struct Pending {
    Offset begin, end;
    EventId event;
  };

  [[gnu::cold]] void leave_events(Offset offset, const Block& block);
  [[gnu::cold]] void wait_for_pending(Offset begin, Offset end, StreamId stream);
  [[gnu::cold]] std::vector<Span> clear_of_holes(std::vector<Span> avoid) const;
  void publish();

  std::unique_ptr<ArenaRange> range_;
  StreamFences& fences_;
  BlockTable blocks_;
  std::vector<Pending> pending_;
  Bytes extent_;       // as adopted; the range's own may be ahead while growing
  Bytes peak_extent_;
  std::vector<Span> holes_;  // likewise, sorted and disjoint; none at almost any time
  // Of the extent, for owns(), which every free of every device asks: in a cache line that requests do not write to.
  struct alignas(64) Published {
    std::atomic<std::uintptr_t> begin{0}, end{0};
  };
  Published published_;
};

}  // namespace ebbtide
