// The tracked blocks that upstream holds, by address.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "allocator/runtime/block_table.h"

namespace ebbtide {

struct UpstreamBlock : BlockRecord {
  bool is_lasting = false;  // lies where its adaptor keeps what stays for good

  // Its death belongs to a round.
  bool is_recorded() const { return origin.round != 0; }
};

// An open-addressing table in shards, each with a lock of its own: threads that allocate and free upstream seldom meet.
// Thread-safe. A shard's lock is the last one taken, and nothing is called with it but what for_each() was given.
// Cost: one short lock and mostly one cache line a call; no heap once warm.
class UpstreamBlocks {
 public:
  // An address that is there already now stands for this block.
  void insert(const void* address, const UpstreamBlock& block);

  struct Taken {
    bool is_known = false;
    std::optional<UpstreamBlock> block;  // removed
  };
  // Removes the block, unless its death belongs to a round: then nothing changes.
  Taken take_unrecorded(const void* address) { return take(address, false); }
  std::optional<UpstreamBlock> take(const void* address) { return take(address, true).block; }

  // Visits all blocks, in no order: visit(address, block&).
  template <typename Visit>
  void for_each(Visit visit) {
    for (Shard& shard : shards_) {
      const std::lock_guard lock(shard.lock);
      for (Slot& slot : shard.slots) {
        if (slot.address != nullptr) visit(slot.address, slot.block);
      }
    }
  }

  // Around fork: no shard may be half changed in the child.
  void lock_all();
  void unlock_all();

 private:
  struct Slot {
    const void* address = nullptr;  // null: empty
    UpstreamBlock block;
  };
  // Invariants: (1) slots are none or a power of two, at most half of them taken; (2) between a block's first choice
  // of a slot and its slot there is no empty one.
  struct alignas(64) Shard {
    std::mutex lock;
    std::vector<Slot> slots;
    std::size_t count = 0;
  };
  static constexpr std::size_t kShardBits = 5;

  Taken take(const void* address, bool even_recorded);
  static void grow(Shard& shard);
  static Slot& slot_for(Shard& shard, const void* address);
  static void close_gap(Shard& shard, std::size_t gap);

  std::array<Shard, std::size_t{1} << kShardBits> shards_;
};

}  // namespace ebbtide
