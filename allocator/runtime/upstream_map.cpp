#include "allocator/runtime/upstream_map.h"

#include <utility>

namespace ebbtide {
namespace {

constexpr std::size_t kFirstSlots = 16;

// The hash's highest bits may have chosen the map: the slot comes from those below them.
std::size_t first_choice(const void* address, std::size_t mask) { return (UpstreamMap::hash_of(address) >> 32) & mask; }

}  // namespace

UpstreamMap::Slot& UpstreamMap::slot_for(const void* address) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = first_choice(address, mask);
  while (slots_[at].address != nullptr && slots_[at].address != address) at = (at + 1) & mask;
  return slots_[at];
}

void UpstreamMap::grow() {
  std::vector<Slot> old = std::exchange(slots_, {});
  slots_.resize(old.empty() ? kFirstSlots : 2 * old.size());
  for (const Slot& slot : old) {
    if (slot.address != nullptr) slot_for(slot.address) = slot;
  }
}

void UpstreamMap::insert(const void* address, const UpstreamBlock& block) {
  if (2 * (count_ + 1) > slots_.size()) grow();
  Slot& slot = slot_for(address);
  count_ += slot.address == nullptr ? 1 : 0;
  slot = {address, block};
}

std::optional<UpstreamBlock> UpstreamMap::take(const void* address) {
  if (count_ == 0) return std::nullopt;
  Slot& slot = slot_for(address);
  if (slot.address == nullptr) return std::nullopt;
  const UpstreamBlock block = slot.block;
  close_gap(static_cast<std::size_t>(&slot - slots_.data()));
  count_ -= 1;
  return block;
}

// What was pushed beyond the gap by the block that is gone moves up into it.
void UpstreamMap::close_gap(std::size_t gap) {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = (gap + 1) & mask; slots_[at].address != nullptr; at = (at + 1) & mask) {
    if (((at - first_choice(slots_[at].address, mask)) & mask) < ((at - gap) & mask)) continue;
    slots_[gap] = slots_[at];
    gap = at;
  }
  slots_[gap] = {};
}

}  // namespace ebbtide
