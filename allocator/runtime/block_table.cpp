#include "allocator/runtime/block_table.h"

#include <algorithm>

#include "allocator/base/check.h"

namespace ebbtide {
namespace {

Offset end_of(const BlockTable::Entry& entry) { return entry.first + entry.second.size; }

}  // namespace

bool BlockTable::try_insert(Offset offset, const BlockRecord& block) {
  EBBTIDE_CHECK_OP(block.size.value, >, 0);
  if (unused_.empty()) [[unlikely]] add_entry();
  const std::uint32_t number = unused_.back();
  // Two live tensors never share a byte: this look at both neighbours is never left out.
  if (!extents_.try_insert(offset, offset + block.size, number)) [[unlikely]] return false;
  unused_.pop_back();
  live_bytes_ += block.size;
  Entry& entry = entries_[number];
  Block& held = entry.second;
  entry.first = offset;
  // One by one: a record that was just put together waits in memory before it can be copied whole.
  held.size = block.size;
  held.origin.round = block.origin.round;
  held.origin.request = block.origin.request;
  held.root = block.root;
  held.survivor = block.survivor;
  held.used_on.clear();
  return true;
}

void BlockTable::insert(Offset offset, const BlockRecord& block) { EBBTIDE_CHECK(try_insert(offset, block)); }

void BlockTable::add_entry() {
  unused_.push_back(static_cast<std::uint32_t>(entries_.size()));
  entries_.emplace_back();
}

const Block* BlockTable::erase(Offset offset) {
  const std::uint32_t number = extents_.erase(offset);
  if (number == ExtentIndex::kNobody) [[unlikely]] return nullptr;
  unused_.push_back(number);
  const Block& block = entries_[number].second;
  live_bytes_ -= block.size;
  return &block;
}

Block* BlockTable::find(Offset offset) {
  const ExtentIndex::Extent* found = extents_.at(extents_.place_of(offset));
  return found == nullptr || found->begin != offset ? nullptr : &entries_[found->holder].second;
}

const BlockTable::Entry* BlockTable::holding_entry(Offset offset, Bytes size) const {
  const ExtentIndex::Place place = extents_.place_of(offset);
  const ExtentIndex::Extent* previous = extents_.before(place);
  if (previous != nullptr && previous->end > offset) return &entries_[previous->holder];
  const ExtentIndex::Extent* next = extents_.at(place);
  return next != nullptr && next->begin < offset + size ? &entries_[next->holder] : nullptr;
}

const Block* BlockTable::holder(Offset offset, Bytes size) const {
  const Entry* entry = holding_entry(offset, size);
  return entry == nullptr ? nullptr : &entry->second;
}

std::optional<Offset> BlockTable::lowest_gap(Bytes size, Bytes alignment, Offset end, const std::vector<Span>& avoid) const {
  Offset place{0};
  auto extent = extents_.begin();
  const auto last = extents_.end();
  auto range = avoid.begin();
  while (place + size <= end) {
    // Skip what lies wholly below, then step over the first thing in the way; both lists are sorted.
    while (extent != last && (*extent).end <= place) ++extent;
    while (range != avoid.end() && range->end <= place) ++range;
    const bool block_in_way = extent != last && (*extent).begin < place + size;
    const bool range_in_way = range != avoid.end() && range->begin < place + size;
    if (!block_in_way && !range_in_way) return place;
    Offset next = place;
    if (block_in_way) next = std::max(next, (*extent).end);
    if (range_in_way) next = std::max(next, range->end);
    place = align_up(next, alignment);
  }
  return std::nullopt;
}

Offset BlockTable::tightest_place(Bytes size, Bytes alignment, const std::vector<Span>& avoid) const {
  std::optional<Offset> best;
  Bytes least;
  Offset gap{0};
  const auto step_over = [&](Offset begin, Offset end) {
    const Bytes room = begin - gap;
    if (room >= size && (!best || room < least)) {
      best = gap;
      least = room;
    }
    gap = std::max(gap, align_up(end, alignment));
  };
  auto range = avoid.begin();
  // (The index has both ends side by side; the blocks lie anywhere.)
  for (const ExtentIndex::Extent& extent : extents_) {
    for (; range != avoid.end() && range->begin < extent.begin; ++range) step_over(range->begin, range->end);
    step_over(extent.begin, extent.end);
  }
  for (; range != avoid.end(); ++range) step_over(range->begin, range->end);
  return best.value_or(gap);
}

Offset BlockTable::highest_end() const {
  const ExtentIndex::Extent* last = extents_.last();
  return last == nullptr ? Offset{0} : last->end;
}

bool BlockTable::is_valid() const {
  Bytes sum;
  Offset end{0};
  for (const Entry& entry : *this) {
    if (entry.first < end || entry.second.size <= Bytes{0}) return false;
    end = end_of(entry);
    sum += entry.second.size;
  }
  return sum == live_bytes_;
}

}  // namespace ebbtide
