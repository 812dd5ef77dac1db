#include "allocator/runtime/arena.h"

#include <algorithm>

namespace ebbtide {

const Block* Arena::release(Offset offset) {
  const Block* block = blocks_.erase(offset);
  if (block != nullptr && !block->used_on.empty()) [[unlikely]] leave_events(offset, *block);
  return block;
}

void Arena::leave_events(Offset offset, const Block& block) {
  for (const StreamId stream : block.used_on) {
    pending_.push_back({offset, offset + block.size, fences_.record(stream)});
  }
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
  publish();
}

// The range moves only while it is empty, and shrinks above live blocks only: whoever asks for a live block of the arena
// finds both ends where they were when it was placed, or wider apart.
void Arena::publish() {
  const auto begin = reinterpret_cast<std::uintptr_t>(range_->base());
  if (begin != published_.begin.load(std::memory_order_relaxed)) {
    published_.end.store(0, std::memory_order_release);
    published_.begin.store(begin, std::memory_order_release);
  }
  published_.end.store(begin + static_cast<std::uintptr_t>(extent_.value), std::memory_order_release);
}

}  // namespace ebbtide
