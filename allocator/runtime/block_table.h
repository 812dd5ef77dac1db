// The blocks that are live in an arena, by offset: who holds which bytes at this moment.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "allocator/base/units.h"
#include "allocator/device/stream_fences.h"
#include "allocator/runtime/extent_index.h"

namespace ebbtide {

// The identity of a request across iterations: which tensor of the program a block is. Stable when
// programs are merged or split; 0 is "not known".
struct RootId {
  std::uint32_t value = 0;
  constexpr auto operator<=>(const RootId&) const = default;
};

// Where a block was requested: a round by its serial number, and its place in that round's order.
struct Origin {
  std::uint32_t round = 0;
  std::uint32_t request = 0;
  constexpr auto operator<=>(const Origin&) const = default;
};

// What is known of a live block, whoever holds it.
struct BlockRecord {
  Bytes size;
  Origin origin;
  RootId root;
  std::int32_t survivor = -1;       // index among the current round's survivors; -1: born in it
};

struct Block : BlockRecord {
  std::vector<StreamId> used_on{};  // streams other than the arena's own that use it too
};

// Disjoint half-open byte ranges of an arena, each with the block that holds it.
//
// Owned by the arena, guarded by its owner. Cost: ExtentIndex's; no heap allocation once warm. A pointer or reference to a
// block is good until the next insert().
// Invariants: (1) live blocks never overlap; (2) live_bytes is the sum of their sizes.
class BlockTable {
 public:
  // True when no live block holds a byte of [offset, offset + size).
  bool is_free(Offset offset, Bytes size) const { return holder(offset, size) == nullptr; }

  // False, and nothing changes, where a live block holds a byte of [offset, offset + block.size). It is used on no other stream
  // so far. Requires: block.size > 0.
  [[gnu::hot]] bool try_insert(Offset offset, const BlockRecord& block);
  // Requires: is_free(offset, block.size).
  void insert(Offset offset, const BlockRecord& block);

  // Removes and returns the block that begins at `offset`; null when there is no such block.
  const Block* erase(Offset offset);

  Block* find(Offset offset);
  // The lowest block that holds a byte of [offset, offset + size); null when the range is free.
  const Block* holder(Offset offset, Bytes size) const;
  // The same with where it begins.
  using Entry = std::pair<Offset, Block>;
  const Entry* holding_entry(Offset offset, Bytes size) const;

  // The lowest offset below `end` at which `size` bytes are free, multiples of `alignment`, staying
  // clear of `avoid` (sorted, disjoint ranges) too.
  std::optional<Offset> lowest_gap(Bytes size, Bytes alignment, Offset end, const std::vector<Span>& avoid) const;
  // Where `size` bytes fit with the least room left over, staying clear of `avoid` (as above) too; above all of them if no gap
  // holds them. Linear in the blocks.
  Offset tightest_place(Bytes size, Bytes alignment, const std::vector<Span>& avoid = {}) const;

  Bytes live_bytes() const { return live_bytes_; }
  std::size_t count() const { return entries_.size() - unused_.size(); }
  // One past the highest live byte.
  Offset highest_end() const;
  bool is_valid() const;

  // All blocks with where they begin, by offset. What a block says of itself may be changed; its size must stay.
  template <typename Table, typename Value>
  class Steps {
   public:
    Steps(Table* table, ExtentIndex::Iterator at) : table_(table), at_(at) {}
    Value& operator*() const { return table_->entries_[(*at_).holder]; }
    Steps& operator++() { return ++at_, *this; }
    bool operator==(const Steps& other) const { return at_ == other.at_; }

   private:
    Table* table_;
    ExtentIndex::Iterator at_;
  };
  using Iterator = Steps<BlockTable, Entry>;
  using ConstIterator = Steps<const BlockTable, const Entry>;
  Iterator begin() { return {this, extents_.begin()}; }
  Iterator end() { return {this, extents_.end()}; }
  ConstIterator begin() const { return {this, extents_.begin()}; }
  ConstIterator end() const { return {this, extents_.end()}; }

 private:
  [[gnu::cold]] void add_entry();

  ExtentIndex extents_;               // holders are indices of entries_
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> unused_; // of entries_
  Bytes live_bytes_;
};

}  // namespace ebbtide
