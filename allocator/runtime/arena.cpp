#include "allocator/runtime/arena.h"

#include <algorithm>
#include <utility>

namespace ebbtide {

void Arena::place(Offset offset, Block block, StreamId stream) {
  if (!pending_.empty()) wait_for_pending(offset, offset + block.size, stream);
  blocks_.insert(offset, std::move(block));
}

std::optional<Block> Arena::release(Offset offset) {
  std::optional<Block> block = blocks_.erase(offset);
  if (!block) return block;
  for (const StreamId stream : block->used_on) {
    pending_.push_back({offset, offset + block->size, fences_.record(stream)});
  }
  return block;
}

void Arena::wait_for_pending(Offset begin, Offset end, StreamId stream) {
  std::erase_if(pending_, [&](const Pending& pending) {
    if (pending.end <= begin || end <= pending.begin) return false;
    fences_.wait_and_destroy(stream, pending.event);
    return true;
  });
}

void Arena::adopt_extent() {
  extent_ = range_->extent();
  peak_extent_ = std::max(peak_extent_, extent_);
}

}  // namespace ebbtide
