// Disjoint byte ranges in order, each with the number of what holds it: found in little memory, close together.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "allocator/base/units.h"

namespace ebbtide {

// Ranges in chunks, and the chunks' first offsets beside them: the leaves of a B+-tree of two levels. A search touches a
// few neighbouring cache lines where a balanced tree of nodes touches one a level, and a range that comes or goes moves half
// a chunk instead of turning nodes.
//
// Guarded by its owner. Cost: O(log n) to find a range, and to insert or erase one O(kMost + n / kMost) moved bytes, which is
// less for up to some hundred thousand ranges. No heap allocation once warm.
// Invariants: (1) ranges are sorted and disjoint; (2) no chunk is empty; (3) firsts_[i] is where chunk i begins.
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

  // Requires: the extent belongs at this place, and is disjoint from its neighbours.
  void insert(Place place, const Extent& extent);
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
  static constexpr std::size_t kMost = 64;  // ranges in a chunk
  struct Chunk {
    std::size_t count = 0;
    std::array<Extent, kMost> extents;
  };

  std::unique_ptr<Chunk> new_chunk();
  void split(std::size_t chunk);

  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<Offset> firsts_;
  std::vector<std::unique_ptr<Chunk>> spare_;
};

}  // namespace ebbtide
