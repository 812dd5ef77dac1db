// Disjoint byte ranges in order, each with the number of what holds it: found in little memory, close together.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "allocator/base/units.h"

namespace ebbtide {

// Ranges in chunks, and the chunks' first offsets beside them: the leaves of a B+-tree of two levels. A search touches a
// few neighbouring cache lines where a balanced tree of nodes touches one a level. All keys of a chunk are compared at once
// (four an instruction), and those of as many chunks, where a binary search waits for each of its loads. A range stays where it
// was written while it lives: when others come or go, only keys and numbers of slots move, always as many, so that nothing is
// predicted wrongly and nobody else's code is called. Chunks are small because of that.
//
// Guarded by its owner. Cost: O(log n) to find a range, and to insert or erase one O(kMost + n / kMost) moved bytes, which is
// less for up to some hundred thousand ranges. No heap allocation once warm.
// Invariants: (1) ranges are sorted and disjoint; (2) no chunk is empty; (3) leaves_[i].first is where chunk i begins, and
// firsts_[i] its key; (4) keys are key_of() of the ranges' first bytes, and kNoKey behind the last; (5) a chunk's slots are each number once.
class ExtentIndex {
 public:
  struct Extent {
    Offset begin, end;
    std::uint32_t holder = 0;
  };
  // Where a range stands or would be inserted; of no use after the next change.
  struct Place {
    std::size_t chunk = 0, index = 0;
  };

  // Before the first range that begins at or above `offset`.
  Place place_of(Offset offset) const;
  // The range at the place and the one before it; null when there is none.
  const Extent* at(Place place) const {
    if (place.chunk < leaves_.size() && place.index < leaves_[place.chunk].chunk->count) [[likely]] {
      return &leaves_[place.chunk].chunk->extent(place.index);
    }
    return first_after(place);
  }
  const Extent* before(Place place) const {
    if (place.index > 0) [[likely]] return &leaves_[place.chunk].chunk->extent(place.index - 1);
    return last_before(place);
  }
  const Extent* last() const;

  // False, and nothing changes, where another range has a byte of this one. Requires: begin < end.
  bool try_insert(Offset begin, Offset end, std::uint32_t holder);
  // The holder of the range that begins at `begin`, which is gone now; kNobody: there is no such range.
  static constexpr std::uint32_t kNobody = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t erase(Offset begin);

  // Steps through all ranges in order.
  class Iterator {
   public:
    Iterator(const ExtentIndex* of, Place place) : of_(of), place_(place) {}
    const Extent& operator*() const { return of_->leaves_[place_.chunk].chunk->extent(place_.index); }
    Iterator& operator++() {
      if (++place_.index == of_->leaves_[place_.chunk].chunk->count) place_ = {place_.chunk + 1, 0};
      return *this;
    }
    bool operator==(const Iterator& other) const { return place_.chunk == other.place_.chunk && place_.index == other.place_.index; }

   private:
    const ExtentIndex* of_;
    Place place_;
  };
  Iterator begin() const { return {this, {0, 0}}; }
  Iterator end() const { return {this, {leaves_.size(), 0}}; }

 private:
  static constexpr std::size_t kMost = 16;  // ranges in a chunk
  // Of an offset: it grows with it, but not with every byte of it.
  using Key = std::int32_t;
  static constexpr Key kNoKey = std::numeric_limits<Key>::max();
  static constexpr int kKeyShift = 12;
  static Key key_of(Offset offset) { return static_cast<Key>(std::min<std::int64_t>(offset.value >> kKeyShift, kNoKey - 1)); }

  // One item for each range, in order. As many cells behind them move with them, whatever stands there, so that it is always
  // the same number that moves.
  template <typename Item>
  struct Row {
    std::array<Item, 2 * kMost> cells{};

    Item* items() { return cells.data(); }
    const Item* items() const { return cells.data(); }
    Item& last() { return cells[kMost - 1]; }
    // All from `at` on moves up by one, the last behind the items. What is to stand at `at` is for the caller to say.
    void open_gap(std::size_t at) { move(at, at + 1); }
    // All behind `at` moves down by one, and what stood behind the items to their end.
    void close_gap(std::size_t at) { move(at + 1, at); }

   private:
    void move(std::size_t from, std::size_t to);
  };
  struct Chunk {
    Chunk() { clear(); }
    void clear();
    Extent& extent(std::size_t index) { return extents[static_cast<std::size_t>(slots.items()[index])]; }
    const Extent& extent(std::size_t index) const { return extents[static_cast<std::size_t>(slots.items()[index])]; }

    std::size_t count = 0;
    Row<Key> keys;
    Row<std::int8_t> slots;  // of extents; behind the last range: those that are free, the one that was freed last at the end
    std::array<Extent, kMost> extents;
  };
  struct Leaf {
    Offset first;
    std::unique_ptr<Chunk> chunk;
  };

  static std::size_t count_below(const Key* keys, Key key);
  [[gnu::noinline]] const Key* narrow(Key above) const;
  std::size_t leaf_of(Offset offset) const;
  Place find(Offset offset) const;
  // Where the next range begins and the one before it ends; where there is none, beyond all others.
  Offset begin_at(Place place) const {
    const Chunk& chunk = *leaves_[place.chunk].chunk;
    if (place.index < chunk.count) [[likely]] return chunk.extent(place.index).begin;
    return place.chunk + 1 < leaves_.size() ? leaves_[place.chunk + 1].first : Offset{std::numeric_limits<std::int64_t>::max()};
  }
  Offset end_before(Place place) const {
    if (place.index > 0) [[likely]] return leaves_[place.chunk].chunk->extent(place.index - 1).end;
    if (place.chunk == 0) return Offset{std::numeric_limits<std::int64_t>::min()};
    const Chunk& previous = *leaves_[place.chunk - 1].chunk;
    return previous.extent(previous.count - 1).end;
  }
  [[gnu::cold]] const Extent* first_after(Place place) const;
  [[gnu::cold]] const Extent* last_before(Place place) const;
  [[gnu::cold]] std::unique_ptr<Chunk> new_chunk();
  [[gnu::cold]] void insert_leaf(std::size_t at, Offset first, std::unique_ptr<Chunk> chunk);
  void set_first(std::size_t leaf, Offset first) {
    leaves_[leaf].first = first;
    firsts_[leaf] = key_of(first);
  }
  // Returns where the place is then.
  [[gnu::cold]] Place split(Place place);
  [[gnu::cold]] void remove_leaf(std::size_t chunk);

  std::vector<Leaf> leaves_;
  std::vector<Key> firsts_ = std::vector<Key>(kMost, kNoKey);  // of the leaves, and kMost behind them that are none
  std::vector<std::unique_ptr<Chunk>> spare_;
};

}  // namespace ebbtide
