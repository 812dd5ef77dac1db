// Blocks of upstream by address.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "allocator/runtime/block_table.h"

namespace ebbtide {

struct UpstreamBlock : BlockRecord {
  bool is_lasting = false;  // lies where its adaptor keeps what stays for good

  // Its death belongs to a round.
  bool is_recorded() const { return origin.round != 0; }
};

// An open-addressing table. Its owner guards it. Cost: mostly one cache line a call; no heap once warm.
class UpstreamMap {
 public:
  // Addresses are multiples of large powers of two: the product's high bits depend on all of theirs (Knuth, The Art of
  // Computer Programming, volume 3, section 6.4).
  static std::uint64_t hash_of(const void* address) {
    return (reinterpret_cast<std::uintptr_t>(address) >> 9) * 0x9E3779B97F4A7C15ULL;
  }

  // An address that is there already now stands for this block.
  void insert(const void* address, const UpstreamBlock& block);
  // Removes the block.
  std::optional<UpstreamBlock> take(const void* address);

  // Visits all blocks, in no order: visit(address, block&).
  template <typename Visit>
  void for_each(Visit& visit) {
    for (Slot& slot : slots_) {
      if (slot.address != nullptr) visit(slot.address, slot.block);
    }
  }

 private:
  struct Slot {
    const void* address = nullptr;  // null: empty
    UpstreamBlock block;
  };

  void grow();
  Slot& slot_for(const void* address);
  void close_gap(std::size_t gap);

  // Invariants: (1) slots are none or a power of two, at most half of them taken; (2) between a block's first choice
  // of a slot and its slot there is no empty one.
  std::vector<Slot> slots_;
  std::size_t count_ = 0;
};

}  // namespace ebbtide
