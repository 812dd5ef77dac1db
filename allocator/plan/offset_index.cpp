#include "allocator/plan/offset_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace ebbtide {
namespace {

constexpr std::int32_t kNeverBorn = std::numeric_limits<std::int32_t>::max();
constexpr std::int32_t kNeverDies = std::numeric_limits<std::int32_t>::min();

// align_up without the division in the common case of a power of two.
std::int64_t round_up(std::int64_t value, std::int64_t alignment) {
  if ((alignment & (alignment - 1)) == 0) return (value + alignment - 1) & -alignment;
  return align_up(value, alignment);
}

// Moves entries [from, count) one place up. Requires: count < the array's size.
template <typename Array>
void open_gap(Array& array, std::uint32_t from, std::uint32_t count) {
  std::memmove(&array[from] + 1, &array[from], (count - from) * sizeof(array[0]));
}

}  // namespace

void OffsetIndex::clear() {
  order_.clear();
  used_blocks_ = 0;
}

// Bit i is set when entry i lives at the same time as the span. Written as a loop without branches
// over the whole block, so that the compiler turns it into vector instructions.
std::uint64_t OffsetIndex::neighbours(const Block& block, Span32 span) {
  std::array<std::uint8_t, kBlock> hit;
  for (std::uint32_t i = 0; i < kBlock; ++i) {
    hit[i] =
        static_cast<std::uint8_t>((block.births[i] < span.death) & (block.deaths[i] > span.birth));
  }
  std::uint64_t mask = 0;
  for (std::uint32_t byte = 0; byte < 8; ++byte) {
    std::uint64_t eight;
    std::memcpy(&eight, &hit[byte * 8], sizeof(eight));
    // Gathers the lowest bit of each of the eight bytes into the top byte.
    mask |= ((eight * 0x0102040810204080ULL) >> 56) << (byte * 8);
  }
  return mask;
}

std::uint64_t OffsetIndex::neighbours(const Block& block, std::span<const Span32> live) {
  std::uint64_t mask = 0;
  for (const Span32& span : live) mask |= neighbours(block, span);
  return mask;
}

std::int64_t OffsetIndex::find(std::span<const Span32> live, std::int64_t size,
                               std::int64_t alignment, FitRule rule) const {
  std::int64_t cursor = 0;  // everything below it is taken or passed over; a multiple of alignment
  std::int64_t best = -1;
  std::int64_t best_gap = std::numeric_limits<std::int64_t>::max();
  const std::int32_t birth = live.front().birth;
  const std::int32_t death = live.back().death;
  for (const Summary& summary : order_) {
    // Nothing in the block or after it lies low enough to disturb a place at the cursor.
    if (rule == FitRule::kFirst && summary.low_offset - cursor >= size) return cursor;
    if (summary.high_end <= cursor) continue;
    if (summary.first_birth >= death || summary.last_death <= birth) continue;
    const Block& block = blocks_[summary.block];
    for (std::uint64_t mask = neighbours(block, live); mask != 0; mask &= mask - 1) {
      const auto i = static_cast<std::uint32_t>(std::countr_zero(mask));
      const std::int64_t gap = block.offsets[i] - cursor;
      if (gap >= size && gap < best_gap) {
        if (rule == FitRule::kFirst) return cursor;
        best = cursor;
        best_gap = gap;
      }
      if (block.ends[i] > cursor) cursor = round_up(block.ends[i], alignment);
    }
  }
  return best >= 0 ? best : cursor;
}

void OffsetIndex::insert(std::span<const Span32> live, std::int64_t offset, std::int64_t size) {
  for (const Span32& span : live) insert_entry(span, offset, offset + size);
}

std::uint32_t OffsetIndex::new_block() {
  if (used_blocks_ == blocks_.size()) blocks_.emplace_back();
  Block& block = blocks_[used_blocks_];
  block.births.fill(kNeverBorn);
  block.deaths.fill(kNeverDies);
  block.count = 0;
  return used_blocks_++;
}

void OffsetIndex::insert_entry(Span32 span, std::int64_t offset, std::int64_t end) {
  if (order_.empty()) {
    order_.push_back({offset, end, span.birth, span.death, 0});
    order_.back().block = new_block();
  }
  // The last block that begins at or below the offset, or the first block.
  auto after = std::upper_bound(order_.begin(), order_.end(), offset,
                                [](std::int64_t o, const Summary& s) { return o < s.low_offset; });
  auto position = static_cast<std::size_t>(after - order_.begin());
  if (position > 0) --position;
  if (blocks_[order_[position].block].count == kBlock) {
    split(position);
    if (offset >= order_[position + 1].low_offset) ++position;
  }
  Block& block = blocks_[order_[position].block];
  const auto* at =
      std::upper_bound(block.offsets.data(), block.offsets.data() + block.count, offset);
  const auto i = static_cast<std::uint32_t>(at - block.offsets.data());
  open_gap(block.births, i, block.count);
  open_gap(block.deaths, i, block.count);
  open_gap(block.offsets, i, block.count);
  open_gap(block.ends, i, block.count);
  block.births[i] = span.birth;
  block.deaths[i] = span.death;
  block.offsets[i] = offset;
  block.ends[i] = end;
  ++block.count;
  Summary& summary = order_[position];
  summary.low_offset = block.offsets[0];
  summary.high_end = std::max(summary.high_end, end);
  summary.first_birth = std::min(summary.first_birth, span.birth);
  summary.last_death = std::max(summary.last_death, span.death);
}

// Moves the upper half of the block at the position into a new block after it.
void OffsetIndex::split(std::size_t position) {
  const std::uint32_t upper_index = new_block();  // may move blocks_
  Block& lower = blocks_[order_[position].block];
  Block& upper = blocks_[upper_index];
  constexpr std::uint32_t kHalf = kBlock / 2;
  for (std::uint32_t i = kHalf; i < kBlock; ++i) {
    upper.births[i - kHalf] = lower.births[i];
    upper.deaths[i - kHalf] = lower.deaths[i];
    upper.offsets[i - kHalf] = lower.offsets[i];
    upper.ends[i - kHalf] = lower.ends[i];
    lower.births[i] = kNeverBorn;
    lower.deaths[i] = kNeverDies;
  }
  lower.count = kHalf;
  upper.count = kHalf;
  Summary summary{};
  summary.block = upper_index;
  order_.insert(order_.begin() + static_cast<std::ptrdiff_t>(position) + 1, summary);
  summarise(position);
  summarise(position + 1);
}

void OffsetIndex::summarise(std::size_t position) {
  Summary& summary = order_[position];
  const Block& block = blocks_[summary.block];
  const auto count = static_cast<std::ptrdiff_t>(block.count);
  summary.low_offset = block.offsets[0];
  summary.high_end = *std::max_element(block.ends.begin(), block.ends.begin() + count);
  summary.first_birth = *std::min_element(block.births.begin(), block.births.begin() + count);
  summary.last_death = *std::max_element(block.deaths.begin(), block.deaths.begin() + count);
}

bool OffsetIndex::is_valid() const {
  std::int64_t last = std::numeric_limits<std::int64_t>::min();
  for (const Summary& summary : order_) {
    const Block& block = blocks_[summary.block];
    if (block.count == 0 || block.count > kBlock) return false;
    if (summary.low_offset != block.offsets[0]) return false;
    for (std::uint32_t i = 0; i < block.count; ++i) {
      if (block.offsets[i] < last || block.ends[i] > summary.high_end) return false;
      last = block.offsets[i];
    }
    for (std::uint32_t i = block.count; i < kBlock; ++i) {
      if (block.births[i] != kNeverBorn || block.deaths[i] != kNeverDies) return false;
    }
  }
  return true;
}

}  // namespace ebbtide
