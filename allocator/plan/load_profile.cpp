#include "allocator/plan/load_profile.h"

#include <algorithm>
#include <bit>

namespace ebbtide {

LoadProfile::LoadProfile(const Sections& sections, SectionRange within)
    : sections_(sections), first_(within.first) {
  std::vector<std::int64_t> blocks((within.last - within.first + kBlock - 1) / kBlock, 0);
  for (std::uint32_t s = within.first; s < within.last; ++s) {
    std::int64_t& block = blocks[(s - first_) / kBlock];
    block = std::max(block, sections.load(s));
  }
  levels_.push_back(std::move(blocks));
  for (std::size_t width = 1; width * 2 <= levels_.front().size(); width *= 2) {
    const std::vector<std::int64_t>& below = levels_.back();
    std::vector<std::int64_t> level(levels_.front().size() - width * 2 + 1);
    for (std::size_t i = 0; i < level.size(); ++i) level[i] = std::max(below[i], below[i + width]);
    levels_.push_back(std::move(level));
  }
}

std::int64_t LoadProfile::max_of(SectionRange range) const {
  std::int64_t load = 0;
  const auto scan = [&](std::uint32_t from, std::uint32_t to) {
    for (std::uint32_t s = from; s < to; ++s) load = std::max(load, sections_.load(s));
  };
  const std::uint32_t from = (range.first - first_ + kBlock - 1) / kBlock;  // whole blocks
  const std::uint32_t to = (range.last - first_) / kBlock;
  if (from >= to) {
    scan(range.first, range.last);
    return load;
  }
  scan(range.first, first_ + from * kBlock);
  scan(first_ + to * kBlock, range.last);
  const auto k = static_cast<std::size_t>(std::bit_width(to - from) - 1);
  const std::vector<std::int64_t>& level = levels_[k];
  return std::max({load, level[from], level[to - (std::size_t{1} << k)]});
}

std::int64_t LoadProfile::max_over(std::span<const SectionRange> ranges) const {
  std::int64_t load = 0;
  for (const SectionRange& range : ranges) load = std::max(load, max_of(range));
  return load;
}

}  // namespace ebbtide
