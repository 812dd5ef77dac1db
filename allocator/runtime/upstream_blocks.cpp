#include "allocator/runtime/upstream_blocks.h"

#include <utility>

namespace ebbtide {
namespace {

constexpr std::size_t kFirstSlots = 16;

// Addresses are multiples of large powers of two: the product's high bits depend on all of theirs (Knuth, The Art of
// Computer Programming, volume 3, section 6.4).
std::uint64_t hash_of(const void* address) {
  return (reinterpret_cast<std::uintptr_t>(address) >> 9) * 0x9E3779B97F4A7C15ULL;
}

}  // namespace

// The shard comes from the hash's highest bits, the slot from those below them.
UpstreamBlocks::Slot& UpstreamBlocks::slot_for(Shard& shard, const void* address) {
  const std::size_t mask = shard.slots.size() - 1;
  std::size_t at = (hash_of(address) >> 32) & mask;
  while (shard.slots[at].address != nullptr && shard.slots[at].address != address) at = (at + 1) & mask;
  return shard.slots[at];
}

void UpstreamBlocks::grow(Shard& shard) {
  std::vector<Slot> old = std::exchange(shard.slots, {});
  shard.slots.resize(old.empty() ? kFirstSlots : 2 * old.size());
  for (const Slot& slot : old) {
    if (slot.address != nullptr) slot_for(shard, slot.address) = slot;
  }
}

void UpstreamBlocks::insert(const void* address, const UpstreamBlock& block) {
  Shard& shard = shards_[hash_of(address) >> (64 - kShardBits)];
  const std::lock_guard lock(shard.lock);
  if (2 * (shard.count + 1) > shard.slots.size()) grow(shard);
  Slot& slot = slot_for(shard, address);
  shard.count += slot.address == nullptr ? 1 : 0;
  slot = {address, block};
}

UpstreamBlocks::Taken UpstreamBlocks::take(const void* address, bool even_recorded) {
  Shard& shard = shards_[hash_of(address) >> (64 - kShardBits)];
  const std::lock_guard lock(shard.lock);
  if (shard.count == 0) return {};
  Slot& slot = slot_for(shard, address);
  if (slot.address == nullptr) return {};
  if (slot.block.is_recorded() && !even_recorded) return {true, std::nullopt};
  const UpstreamBlock block = slot.block;
  close_gap(shard, static_cast<std::size_t>(&slot - shard.slots.data()));
  shard.count -= 1;
  return {true, block};
}

// What was pushed beyond the gap by the block that is gone moves up into it.
void UpstreamBlocks::close_gap(Shard& shard, std::size_t gap) {
  const std::size_t mask = shard.slots.size() - 1;
  for (std::size_t at = (gap + 1) & mask; shard.slots[at].address != nullptr; at = (at + 1) & mask) {
    const std::size_t first_choice = (hash_of(shard.slots[at].address) >> 32) & mask;
    if (((at - first_choice) & mask) < ((at - gap) & mask)) continue;
    shard.slots[gap] = shard.slots[at];
    gap = at;
  }
  shard.slots[gap] = {};
}

void UpstreamBlocks::lock_all() {
  for (Shard& shard : shards_) shard.lock.lock();
}

void UpstreamBlocks::unlock_all() {
  for (Shard& shard : shards_) shard.lock.unlock();
}

}  // namespace ebbtide
