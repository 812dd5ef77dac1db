#include "allocator/runtime/extent_index.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace ebbtide {
namespace {

// As many items as any processor handles at once. The loops over them are not unrolled: a request goes through the same few
// lines of code.
template <typename Item>
struct Lanes {
  using Type [[gnu::vector_size(16)]] = Item;
  static constexpr std::size_t kCount = 16 / sizeof(Item);

  static Type load(const Item* from) {
    Type lanes;
    std::memcpy(&lanes, from, sizeof(lanes));
    return lanes;
  }
  static void store(Type lanes, Item* to) { std::memcpy(to, &lanes, sizeof(lanes)); }
  static Type all(Item value) { return Type{} + value; }
  static Type from_zero() {
    Type lanes{};
    for (std::size_t i = 0; i < kCount; ++i) lanes[i] = static_cast<Item>(i);
    return lanes;
  }
};

}  // namespace

template <typename Item>
[[gnu::always_inline]] inline void ExtentIndex::Row<Item>::open_gap(std::size_t at) {
  using L = Lanes<Item>;
  const auto first = L::all(static_cast<Item>(at));
  auto numbers = L::from_zero() + static_cast<Item>(kMost - L::kCount);
  for (std::size_t end = kMost; end > 0; end -= L::kCount) {
    Item* const here = items() + (end - L::kCount);
    const auto moves = numbers > first;
    L::store((L::load(here - 1) & moves) | (L::load(here) & ~moves), here);
    numbers -= static_cast<Item>(L::kCount);
  }
}

template <typename Item>
[[gnu::always_inline]] inline void ExtentIndex::Row<Item>::close_gap(std::size_t at) {
  using L = Lanes<Item>;
  const auto first = L::all(static_cast<Item>(at));
  auto numbers = L::from_zero();
  for (Item* here = items(); here < items() + kMost; here += L::kCount) {
    const auto stays = first > numbers;
    L::store((L::load(here) & stays) | (L::load(here + 1) & ~stays), here);
    numbers += static_cast<Item>(L::kCount);
  }
}

void ExtentIndex::Chunk::clear() {
  count = 0;
  keys.cells.fill(kNoKey);
  std::iota(slots.items(), slots.items() + kMost, std::int8_t{0});
}

// The last one that begins at or below `offset`, or else the first. Multiplied, because compilers make a branch of a choice, and of
// these every second one would be mispredicted. Requires: there are leaves.
std::size_t ExtentIndex::leaf_of(Offset offset) const {
  const Leaf* begin = leaves_.data();
  std::size_t count = leaves_.size();
  while (count > 1) {
    const std::size_t half = count / 2;
    begin += static_cast<std::size_t>(begin[half].first <= offset) * half;
    count -= half;
  }
  return static_cast<std::size_t>(begin - leaves_.data());
}

// In the code of each of its callers: whoever has run since has taken the caches, and one for all would save nothing.
[[gnu::always_inline]] inline ExtentIndex::Place ExtentIndex::find(Offset offset) const {
  if (leaves_.empty()) [[unlikely]] return {};
  const std::size_t number = leaf_of(offset);
  const Chunk& chunk = *leaves_[number].chunk;
  using L = Lanes<Key>;
  const auto key = L::all(key_of(offset));
  auto below = L::all(0);
  for (const Key* here = chunk.keys.items(); here < chunk.keys.items() + kMost; here += L::kCount) below -= L::load(here) < key;
  auto index = static_cast<std::size_t>((below[0] + below[1]) + (below[2] + below[3]));
  while (index < chunk.count && chunk.extent(index).begin < offset) [[unlikely]] ++index;  // of the same key
  return {number, index};
}

ExtentIndex::Place ExtentIndex::place_of(Offset offset) const { return find(offset); }

const ExtentIndex::Extent* ExtentIndex::first_after(Place place) const {
  return place.chunk + 1 < leaves_.size() ? &leaves_[place.chunk + 1].chunk->extent(0) : nullptr;
}

const ExtentIndex::Extent* ExtentIndex::last_before(Place place) const {
  if (place.chunk == 0) return nullptr;
  const Chunk& previous = *leaves_[place.chunk - 1].chunk;
  return &previous.extent(previous.count - 1);
}

const ExtentIndex::Extent* ExtentIndex::last() const { return before({leaves_.size(), 0}); }

std::unique_ptr<ExtentIndex::Chunk> ExtentIndex::new_chunk() {
  if (spare_.empty()) return std::make_unique<Chunk>();
  std::unique_ptr<Chunk> chunk = std::move(spare_.back());
  spare_.pop_back();
  chunk->clear();
  return chunk;
}

void ExtentIndex::add_first_leaf(Offset begin) { leaves_.push_back({begin, new_chunk()}); }

ExtentIndex::Place ExtentIndex::split(Place place) {
  constexpr std::size_t kKept = kMost / 2;
  Chunk& full = *leaves_[place.chunk].chunk;
  std::unique_ptr<Chunk> upper = new_chunk();
  for (std::size_t i = kKept; i < kMost; ++i) upper->extents[i - kKept] = full.extent(i);  // new: its slots are in order
  std::copy_n(full.keys.items() + kKept, kMost - kKept, upper->keys.items());
  std::fill_n(full.keys.items() + kKept, kMost - kKept, kNoKey);
  full.count = kKept;
  upper->count = kMost - kKept;
  const auto behind = static_cast<std::ptrdiff_t>(place.chunk) + 1;
  const Offset first = upper->extents.front().begin;
  leaves_.insert(leaves_.begin() + behind, Leaf{first, std::move(upper)});
  return place.index > kKept ? Place{place.chunk + 1, place.index - kKept} : place;
}

bool ExtentIndex::try_insert(Offset begin, Offset end, std::uint32_t holder) {
  Place place = find(begin);
  if (const Extent* next = at(place); next != nullptr && next->begin < end) [[unlikely]] return false;
  if (const Extent* previous = before(place); previous != nullptr && previous->end > begin) [[unlikely]] return false;
  if (leaves_.empty()) [[unlikely]] add_first_leaf(begin);
  if (leaves_[place.chunk].chunk->count == kMost) [[unlikely]] place = split(place);
  Chunk& chunk = *leaves_[place.chunk].chunk;
  const std::int8_t slot = chunk.slots.last();
  chunk.keys.open_gap(place.index);
  chunk.slots.open_gap(place.index);
  ++chunk.count;
  chunk.keys.items()[place.index] = key_of(begin);
  chunk.slots.items()[place.index] = slot;
  Extent& extent = chunk.extents[static_cast<std::size_t>(slot)];
  extent.begin = begin;
  extent.end = end;
  extent.holder = holder;
  if (place.index == 0) leaves_[place.chunk].first = begin;
  return true;
}

std::uint32_t ExtentIndex::erase(Offset begin) {
  const Place place = find(begin);
  const Extent* const found = at(place);
  if (found == nullptr || found->begin != begin) [[unlikely]] return kNobody;
  const std::uint32_t holder = found->holder;
  Chunk& chunk = *leaves_[place.chunk].chunk;
  const std::int8_t slot = chunk.slots.items()[place.index];
  chunk.keys.close_gap(place.index);
  chunk.slots.close_gap(place.index);
  chunk.slots.last() = slot;
  if (--chunk.count == 0) [[unlikely]] {
    remove_leaf(place.chunk);
  } else if (place.index == 0) {
    leaves_[place.chunk].first = chunk.extent(0).begin;
  }
  return holder;
}

void ExtentIndex::remove_leaf(std::size_t chunk) {
  spare_.push_back(std::move(leaves_[chunk].chunk));
  leaves_.erase(leaves_.begin() + static_cast<std::ptrdiff_t>(chunk));
}

}  // namespace ebbtide
