#include "allocator/runtime/block_table.h"

#include <algorithm>
#include <utility>

#include "allocator/base/check.h"

namespace ebbtide {
namespace {

Offset end_of(const std::pair<const Offset, Block>& entry) { return entry.first + entry.second.size; }

}  // namespace

BlockTable::Map::const_iterator BlockTable::first_from(Offset offset) const {
  if (last_.offset != offset) last_ = {offset, blocks_.lower_bound(offset)};
  return last_.found;
}

bool BlockTable::is_free(Offset offset, Bytes size) const {
  const auto next = blocks_.lower_bound(offset);
  if (next != blocks_.end() && next->first < offset + size) return false;
  return next == blocks_.begin() || end_of(*std::prev(next)) <= offset;
}

void BlockTable::insert(Offset offset, Block block) {
  EBBTIDE_CHECK_OP(block.size.value, >, 0);
  const auto next = first_from(offset);
  // Two live tensors never share a byte: this check is never compiled out.
  if (next != blocks_.end()) {
    EBBTIDE_CHECK_OP((offset + block.size).value, <=, next->first.value);
  }
  if (next != blocks_.begin()) {
    EBBTIDE_CHECK_OP(end_of(*std::prev(next)).value, <=, offset.value);
  }
  last_ = {};
  live_bytes_ += block.size;
  if (spare_.empty()) {
    blocks_.emplace_hint(next, offset, std::move(block));
    return;
  }
  Map::node_type node = std::move(spare_.back());
  spare_.pop_back();
  node.key() = offset;
  node.mapped() = std::move(block);
  blocks_.insert(next, std::move(node));
}

std::optional<Block> BlockTable::erase(Offset offset) {
  const auto found = blocks_.find(offset);
  if (found == blocks_.end()) return std::nullopt;
  last_ = {};
  Block block = std::move(found->second);
  live_bytes_ -= block.size;
  spare_.push_back(blocks_.extract(found));
  return block;
}

Block* BlockTable::find(Offset offset) {
  const auto found = blocks_.find(offset);
  return found == blocks_.end() ? nullptr : &found->second;
}

const Block* BlockTable::holder(Offset offset, Bytes size) const {
  auto at = first_from(offset);
  if (at != blocks_.begin() && end_of(*std::prev(at)) > offset) --at;
  return at != blocks_.end() && at->first < offset + size ? &at->second : nullptr;
}

std::optional<Offset> BlockTable::lowest_gap(Bytes size, Bytes alignment, Offset end,
                                             const std::vector<Range>& avoid) const {
  Offset place{0};
  auto block = blocks_.begin();
  auto range = avoid.begin();
  while (place + size <= end) {
    // Skip what lies wholly below, then step over the first thing in the way; both lists are sorted.
    while (block != blocks_.end() && end_of(*block) <= place) ++block;
    while (range != avoid.end() && range->end <= place) ++range;
    const bool block_in_way = block != blocks_.end() && block->first < place + size;
    const bool range_in_way = range != avoid.end() && range->begin < place + size;
    if (!block_in_way && !range_in_way) return place;
    Offset next = place;
    if (block_in_way) next = std::max(next, end_of(*block));
    if (range_in_way) next = std::max(next, range->end);
    place = align_up(next, alignment);
  }
  return std::nullopt;
}

Offset BlockTable::tightest_place(Bytes size, Bytes alignment) const {
  std::optional<Offset> best;
  Bytes least;
  Offset gap{0};
  for (const auto& entry : blocks_) {
    const Bytes room = entry.first - gap;
    if (room >= size && (!best || room < least)) {
      best = gap;
      least = room;
    }
    gap = align_up(end_of(entry), alignment);
  }
  return best.value_or(gap);
}

Offset BlockTable::highest_end() const {
  return blocks_.empty() ? Offset{0} : end_of(*blocks_.rbegin());
}

bool BlockTable::is_valid() const {
  Bytes sum;
  Offset end{0};
  for (const auto& entry : blocks_) {
    if (entry.first < end || entry.second.size <= Bytes{0}) return false;
    end = end_of(entry);
    sum += entry.second.size;
  }
  return sum == live_bytes_;
}

}  // namespace ebbtide
