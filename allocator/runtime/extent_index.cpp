#include "allocator/runtime/extent_index.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace ebbtide {
namespace {

// As many items as any processor handles at once.
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
};

}  // namespace

// Of kMost cells; all are read before one is written.
template <typename Item>
[[gnu::always_inline]] inline void ExtentIndex::Row<Item>::move(std::size_t from, std::size_t to) {
  using L = Lanes<Item>;
  std::array<typename L::Type, kMost / L::kCount> moved;
#pragma GCC unroll 4
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i] = L::load(items() + from + i * L::kCount);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < moved.size(); ++i) L::store(moved[i], items() + to + i * L::kCount);
}

void ExtentIndex::Chunk::clear() {
  count = 0;
  keys.cells.fill(kNoKey);
  std::iota(slots.items(), slots.items() + kMost, std::int8_t{0});
}

// Of the next kMost. Sums of two lanes are added as one number: each is small.
[[gnu::always_inline]] inline std::size_t ExtentIndex::count_below(const Key* keys, Key key) {
  using L = Lanes<Key>;
  using Pair [[gnu::vector_size(16)]] = std::uint64_t;
  const auto limit = L::all(key);
  auto below = L::all(0);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kMost; i += L::kCount) below -= L::load(keys + i) < limit;
  const auto pair = reinterpret_cast<Pair>(below);
  const std::uint64_t sums = pair[0] + pair[1];
  return static_cast<std::uint32_t>(sums) + (sums >> 32);
}

// Of more leaves than are compared at once half are left out, again and again; multiplied, because compilers make a branch of a
// choice, and of these every second one would be mispredicted.
const ExtentIndex::Key* ExtentIndex::narrow(Key above) const {
  const Key* begin = firsts_.data();
  for (std::size_t count = leaves_.size(); count > kMost;) {
    const std::size_t half = count / 2;
    begin += static_cast<std::size_t>(begin[half] < above) * half;
    count -= half;
  }
  return begin;
}

// The last one that begins at or below `offset`, or else the first. Requires: there are leaves.
[[gnu::always_inline]] inline std::size_t ExtentIndex::leaf_of(Offset offset) const {
  const Key above = key_of(offset) + 1;
  const Key* begin = firsts_.data();
  if (leaves_.size() > kMost) [[unlikely]] begin = narrow(above);
  const std::size_t end = static_cast<std::size_t>(begin - firsts_.data()) + count_below(begin, above);
  if (end == 0) [[unlikely]] return 0;
  if (leaves_[end - 1].first <= offset) [[likely]] return end - 1;
  std::size_t leaf = end - 1;  // of the same key
  while (leaf > 0 && leaves_[leaf].first > offset) --leaf;
  return leaf;
}

// In the code of each of its callers: whoever has run since has taken the caches, and one for all would save nothing.
// Requires: there are leaves.
[[gnu::always_inline]] inline ExtentIndex::Place ExtentIndex::find(Offset offset) const {
  const std::size_t number = leaf_of(offset);
  const Chunk& chunk = *leaves_[number].chunk;
  std::size_t index = count_below(chunk.keys.items(), key_of(offset));
  while (index < chunk.count && chunk.extent(index).begin < offset) [[unlikely]] ++index;  // of the same key
  return {number, index};
}

ExtentIndex::Place ExtentIndex::place_of(Offset offset) const { return leaves_.empty() ? Place{} : find(offset); }

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

void ExtentIndex::insert_leaf(std::size_t at, Offset first, std::unique_ptr<Chunk> chunk) {
  const auto place = static_cast<std::ptrdiff_t>(at);
  leaves_.insert(leaves_.begin() + place, Leaf{first, std::move(chunk)});
  firsts_.insert(firsts_.begin() + place, key_of(first));
}

ExtentIndex::Place ExtentIndex::split(Place place) {
  constexpr std::size_t kKept = kMost / 2;
  Chunk& full = *leaves_[place.chunk].chunk;
  std::unique_ptr<Chunk> upper = new_chunk();
  for (std::size_t i = kKept; i < kMost; ++i) upper->extents[i - kKept] = full.extent(i);  // new: its slots are in order
  std::copy_n(full.keys.items() + kKept, kMost - kKept, upper->keys.items());
  std::fill_n(full.keys.items() + kKept, kMost - kKept, kNoKey);
  full.count = kKept;
  upper->count = kMost - kKept;
  const Offset first = upper->extents.front().begin;
  insert_leaf(place.chunk + 1, first, std::move(upper));
  return place.index > kKept ? Place{place.chunk + 1, place.index - kKept} : place;
}

bool ExtentIndex::try_insert(Offset begin, Offset end, std::uint32_t holder) {
  if (leaves_.empty()) [[unlikely]] insert_leaf(0, begin, new_chunk());
  Place place = find(begin);
  if (begin_at(place) < end || end_before(place) > begin) [[unlikely]] return false;
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
  if (place.index == 0) set_first(place.chunk, begin);
  return true;
}

std::uint32_t ExtentIndex::erase(Offset begin) {
  if (leaves_.empty()) [[unlikely]] return kNobody;
  const Place place = find(begin);
  Chunk& chunk = *leaves_[place.chunk].chunk;
  if (place.index >= chunk.count || chunk.extent(place.index).begin != begin) [[unlikely]] return kNobody;
  const std::int8_t slot = chunk.slots.items()[place.index];
  const std::uint32_t holder = chunk.extents[static_cast<std::size_t>(slot)].holder;
  chunk.keys.close_gap(place.index);
  chunk.slots.close_gap(place.index);
  chunk.slots.last() = slot;
  if (--chunk.count == 0) [[unlikely]] {
    remove_leaf(place.chunk);
  } else if (place.index == 0) {
    set_first(place.chunk, chunk.extent(0).begin);
  }
  return holder;
}

void ExtentIndex::remove_leaf(std::size_t chunk) {
  spare_.push_back(std::move(leaves_[chunk].chunk));
  leaves_.erase(leaves_.begin() + static_cast<std::ptrdiff_t>(chunk));
  firsts_.erase(firsts_.begin() + static_cast<std::ptrdiff_t>(chunk));
}

}  // namespace ebbtide
