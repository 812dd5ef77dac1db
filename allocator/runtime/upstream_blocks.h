// The tracked blocks that upstream holds, by address.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <optional>

#include "allocator/runtime/upstream_map.h"

namespace ebbtide {

// Blocks that belong to a round are written down and crossed out with the engine's lock, which orders them anyway. The
// others are in shards, each with a lock of its own: threads that allocate and free upstream seldom meet. A shard's
// lock is the last one taken, and nothing is called with it but what for_each() was given.
class UpstreamBlocks {
 public:
  // Of blocks that belong to no round. Thread-safe.
  void insert(const void* address, const UpstreamBlock& block) {
    Shard& shard = shard_of(address);
    const std::lock_guard lock(shard.lock);
    shard.blocks.insert(address, block);
  }
  std::optional<UpstreamBlock> take(const void* address) {
    Shard& shard = shard_of(address);
    const std::lock_guard lock(shard.lock);
    return shard.blocks.take(address);
  }

  // Of blocks that do. With the engine's lock.
  void insert_recorded(const void* address, const UpstreamBlock& block) { recorded_.insert(address, block); }
  std::optional<UpstreamBlock> take_recorded(const void* address) { return recorded_.take(address); }

  // Visits all blocks, in no order: visit(address, block&). With the engine's lock.
  template <typename Visit>
  void for_each(Visit visit) {
    recorded_.for_each(visit);
    for (Shard& shard : shards_) {
      const std::lock_guard lock(shard.lock);
      shard.blocks.for_each(visit);
    }
  }

  // Around fork: no shard may be half changed in the child.
  void lock_all() {
    for (Shard& shard : shards_) shard.lock.lock();
  }
  void unlock_all() {
    for (Shard& shard : shards_) shard.lock.unlock();
  }

 private:
  struct alignas(64) Shard {
    std::mutex lock;  // guards blocks
    UpstreamMap blocks;
  };
  static constexpr std::size_t kShardBits = 5;

  Shard& shard_of(const void* address) { return shards_[UpstreamMap::hash_of(address) >> (64 - kShardBits)]; }

  UpstreamMap recorded_;
  std::array<Shard, std::size_t{1} << kShardBits> shards_;
};

}  // namespace ebbtide
