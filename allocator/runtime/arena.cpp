#include "allocator/runtime/arena.h"

#include <algorithm>
#include <utility>

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

Bytes Arena::held() const {
  Bytes held = extent_;
  for (const Span& hole : holes_) held -= hole.end - hole.begin;
  return held;
}

std::vector<Span> Arena::withdraw_idle() {
  std::vector<Span> taken;
  for (const auto& [offset, block] : blocks_) taken.push_back({offset, offset + block.size});
  std::vector<Span> idle;
  Offset end{0};
  for (const Span& span : clear_of_holes(std::move(taken))) {
    if (span.begin > end) idle.push_back({end, span.begin});
    end = span.end;
  }
  holes_ = clear_of_holes(idle);
  std::sort(idle.begin(), idle.end(), [](const Span& a, const Span& b) { return a.end - a.begin > b.end - b.begin; });
  return idle;
}

std::vector<Span> Arena::clear_of_holes(std::vector<Span> avoid) const {
  avoid.insert(avoid.end(), holes_.begin(), holes_.end());
  return merged(std::move(avoid));
}

bool Arena::is_valid() const {
  for (const auto& [offset, block] : blocks_) {
    if (any_meets(holes_, offset, block.size)) return false;
  }
  return blocks_.is_valid() && blocks_.highest_end().value <= peak_extent_.value;
}

void Arena::adopt_extent() {
  extent_ = range_->extent();
  holes_ = range_->holes();
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
