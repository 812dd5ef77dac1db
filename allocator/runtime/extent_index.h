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
// few neighbouring cache lines where a balanced tree of nodes touches one a level, and a range that comes or goes moves half
// a chunk instead of turning nodes. In a chunk all keys are compared at once (four an instruction) where a binary search waits
// for each of its loads.
//
// Guarded by its owner. Cost: O(log n) to find a range, and to insert or erase one O(kMost + n / kMost) moved bytes, which is
// less for up to some hundred thousand ranges. No heap allocation once warm.
// Invariants: (1) ranges are sorted and disjoint; (2) no chunk is empty; (3) firsts_[i] is where chunk i begins; (4) keys are
// key_of() of the ranges' first bytes, and kNoKey behind the last.
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
  const Extent* at(Place place) const;
  const Extent* before(Place place) const;
  const Extent* last() const;

  // Requires: the range belongs at this place, and is disjoint from its neighbours.
  void insert(Place place, Offset begin, Offset end, std::uint32_t holder);
  // Requires: at(place) is not null, and was found by the offset at which it begins.
  void erase(Place place);

  // Steps through all ranges in order.
  class Iterator {
   public:
    Iterator(const ExtentIndex* of, Place place) : of_(of), place_(place) {}
    const Extent& operator*() const { return of_->chunks_[place_.chunk]->extents[place_.index]; }
    Iterator& operator++() {
      if (++place_.index == of_->chunks_[place_.chunk]->count) place_ = {place_.chunk + 1, 0};
      return *this;
    }
    bool operator==(const Iterator& other) const { return place_.chunk == other.place_.chunk && place_.index == other.place_.index; }

   private:
    const ExtentIndex* of_;
    Place place_;
  };
  Iterator begin() const { return {this, {0, 0}}; }
  Iterator end() const { return {this, {chunks_.size(), 0}}; }

 private:
  static constexpr std::size_t kMost = 32;  // ranges in a chunk
  // Of an offset: it grows with it, but not with every byte of it.
  using Key = std::int32_t;
  static constexpr Key kNoKey = std::numeric_limits<Key>::max();
  static constexpr int kKeyShift = 12;
  static Key key_of(Offset offset) { return static_cast<Key>(std::min<std::int64_t>(offset.value >> kKeyShift, kNoKey - 1)); }

  struct Chunk {
    Chunk() { keys.fill(kNoKey); }

    std::size_t count = 0;
    std::array<Key, kMost> keys;
    std::array<Extent, kMost> extents;
  };

  std::size_t chunk_of(Offset offset) const;
  std::unique_ptr<Chunk> new_chunk();
  void split(std::size_t chunk);

  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<Offset> firsts_;
  std::vector<std::unique_ptr<Chunk>> spare_;
};

}  // namespace ebbtide
