#include "allocator/runtime/extent_index.h"

#include <algorithm>
#include <utility>

namespace ebbtide {

// The last one that begins at or below `offset`, or else the first. Multiplied, because compilers make a branch of a choice, and of
// these every second one would be mispredicted. Requires: there are chunks.
std::size_t ExtentIndex::chunk_of(Offset offset) const {
  const Offset* begin = firsts_.data();
  std::size_t count = firsts_.size();
  while (count > 1) {
    const std::size_t half = count / 2;
    begin += static_cast<std::size_t>(begin[half] <= offset) * half;
    count -= half;
  }
  return static_cast<std::size_t>(begin - firsts_.data());
}

ExtentIndex::Place ExtentIndex::place_of(Offset offset) const {
  if (chunks_.empty()) return {};
  const std::size_t number = chunk_of(offset);
  const Chunk& chunk = *chunks_[number];
  const Key key = key_of(offset);
  Key below = 0;
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kMost; ++i) below += chunk.keys[i] < key ? 1 : 0;  // of a length known beforehand: vectorised
  auto index = static_cast<std::size_t>(below);
  while (index < chunk.count && chunk.extents[index].begin < offset) ++index;  // of the same key
  return {number, index};
}

const ExtentIndex::Extent* ExtentIndex::at(Place place) const {
  if (place.chunk < chunks_.size() && place.index < chunks_[place.chunk]->count) {
    return &chunks_[place.chunk]->extents[place.index];
  }
  return place.chunk + 1 < chunks_.size() ? chunks_[place.chunk + 1]->extents.data() : nullptr;
}

const ExtentIndex::Extent* ExtentIndex::before(Place place) const {
  if (place.index > 0) return &chunks_[place.chunk]->extents[place.index - 1];
  if (place.chunk == 0) return nullptr;
  const Chunk& previous = *chunks_[place.chunk - 1];
  return &previous.extents[previous.count - 1];
}

const ExtentIndex::Extent* ExtentIndex::last() const { return before({chunks_.size(), 0}); }

std::unique_ptr<ExtentIndex::Chunk> ExtentIndex::new_chunk() {
  if (spare_.empty()) return std::make_unique<Chunk>();
  std::unique_ptr<Chunk> chunk = std::move(spare_.back());
  spare_.pop_back();
  chunk->count = 0;
  chunk->keys.fill(kNoKey);
  return chunk;
}

void ExtentIndex::split(std::size_t chunk) {
  Chunk& full = *chunks_[chunk];
  std::unique_ptr<Chunk> upper = new_chunk();
  const auto middle = full.extents.begin() + kMost / 2;
  std::copy(middle, full.extents.end(), upper->extents.begin());
  std::copy(full.keys.begin() + kMost / 2, full.keys.end(), upper->keys.begin());
  std::fill(full.keys.begin() + kMost / 2, full.keys.end(), kNoKey);
  full.count = upper->count = kMost / 2;
  const auto behind = static_cast<std::ptrdiff_t>(chunk) + 1;
  firsts_.insert(firsts_.begin() + behind, upper->extents.front().begin);
  chunks_.insert(chunks_.begin() + behind, std::move(upper));
}

void ExtentIndex::insert(Place place, Offset begin, Offset end, std::uint32_t holder) {
  if (chunks_.empty()) {
    chunks_.push_back(new_chunk());
    firsts_.push_back(begin);
  }
  if (chunks_[place.chunk]->count == kMost) {
    split(place.chunk);
    if (place.index > kMost / 2) place = {place.chunk + 1, place.index - kMost / 2};
  }
  Chunk& chunk = *chunks_[place.chunk];
  Extent* const extents = chunk.extents.data();
  Key* const keys = chunk.keys.data();
  std::copy_backward(extents + place.index, extents + chunk.count, extents + chunk.count + 1);
  std::copy_backward(keys + place.index, keys + chunk.count, keys + chunk.count + 1);
  extents[place.index].begin = begin;
  extents[place.index].end = end;
  extents[place.index].holder = holder;
  keys[place.index] = key_of(begin);
  ++chunk.count;
  if (place.index == 0) firsts_[place.chunk] = begin;
}

void ExtentIndex::erase(Place place) {
  Chunk& chunk = *chunks_[place.chunk];
  Extent* const begin = chunk.extents.data();
  Key* const keys = chunk.keys.data();
  std::copy(begin + place.index + 1, begin + chunk.count, begin + place.index);
  std::copy(keys + place.index + 1, keys + chunk.count, keys + place.index);
  keys[--chunk.count] = kNoKey;
  if (chunk.count > 0) {
    if (place.index == 0) firsts_[place.chunk] = begin->begin;
    return;
  }
  const auto at = static_cast<std::ptrdiff_t>(place.chunk);
  spare_.push_back(std::move(chunks_[place.chunk]));
  chunks_.erase(chunks_.begin() + at);
  firsts_.erase(firsts_.begin() + at);
}

}  // namespace ebbtide
