#include "allocator/runtime/extent_index.h"

#include <algorithm>
#include <utility>

namespace ebbtide {

ExtentIndex::Place ExtentIndex::place_of(Offset offset) const {
  if (chunks_.empty()) return {};
  const auto next = std::upper_bound(firsts_.begin() + 1, firsts_.end(), offset);
  const auto chunk = static_cast<std::size_t>(next - firsts_.begin()) - 1;
  const Chunk& found = *chunks_[chunk];
  const Extent* begin = found.extents.data();
  std::size_t count = found.count;
  while (count > 0) {  // without a branch that could be mispredicted
    const std::size_t half = count / 2;
    begin = begin[half].begin < offset ? begin + (count - half) : begin;
    count = half;
  }
  return {chunk, static_cast<std::size_t>(begin - found.extents.data())};
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
  return chunk;
}

void ExtentIndex::split(std::size_t chunk) {
  Chunk& full = *chunks_[chunk];
  std::unique_ptr<Chunk> upper = new_chunk();
  const auto middle = full.extents.begin() + kMost / 2;
  std::copy(middle, full.extents.end(), upper->extents.begin());
  full.count = upper->count = kMost / 2;
  const auto behind = static_cast<std::ptrdiff_t>(chunk) + 1;
  firsts_.insert(firsts_.begin() + behind, upper->extents.front().begin);
  chunks_.insert(chunks_.begin() + behind, std::move(upper));
}

void ExtentIndex::insert(Place place, const Extent& extent) {
  if (chunks_.empty()) {
    chunks_.push_back(new_chunk());
    firsts_.push_back(extent.begin);
  }
  if (chunks_[place.chunk]->count == kMost) {
    split(place.chunk);
    if (place.index > kMost / 2) place = {place.chunk + 1, place.index - kMost / 2};
  }
  Chunk& chunk = *chunks_[place.chunk];
  Extent* const begin = chunk.extents.data();
  std::copy_backward(begin + place.index, begin + chunk.count, begin + chunk.count + 1);
  begin[place.index] = extent;
  ++chunk.count;
  if (place.index == 0) firsts_[place.chunk] = extent.begin;
}

void ExtentIndex::erase(Place place) {
  Chunk& chunk = *chunks_[place.chunk];
  Extent* const begin = chunk.extents.data();
  std::copy(begin + place.index + 1, begin + chunk.count, begin + place.index);
  if (--chunk.count > 0) {
    if (place.index == 0) firsts_[place.chunk] = begin->begin;
    return;
  }
  const auto at = static_cast<std::ptrdiff_t>(place.chunk);
  spare_.push_back(std::move(chunks_[place.chunk]));
  chunks_.erase(chunks_.begin() + at);
  firsts_.erase(firsts_.begin() + at);
}

}  // namespace ebbtide
