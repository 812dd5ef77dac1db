#include "allocator/plan/skyline.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace ebbtide {
namespace {
constexpr std::int64_t kNoWall = std::numeric_limits<std::int64_t>::max();
}

Skyline::Skyline(std::uint32_t sections)
    : sections_(sections),
      is_start_(sections / 64 + 1, 0),
      lasts_(sections, 0),
      floors_(sections, 0) {
  add(0, sections, 0);
}

Skyline Skyline::slice(SectionRange sections) const {
  Skyline part(sections.last - sections.first);
  for (std::uint32_t s = sections.first; s < sections.last;) {
    const std::uint32_t start = start_of(s);
    const std::uint32_t last = std::min(lasts_[start], sections.last);
    part.add(s - sections.first, last - sections.first, floors_[start]);
    s = last;
  }
  return part;
}

std::uint32_t Skyline::start_of(std::uint32_t section) const {
  std::uint32_t word = section / 64;
  std::uint64_t bits = is_start_[word] & (~std::uint64_t{0} >> (63 - section % 64));
  while (bits == 0) bits = is_start_[--word];
  return word * 64 + 63 - static_cast<std::uint32_t>(std::countl_zero(bits));
}

void Skyline::add(std::uint32_t start, std::uint32_t last, std::int64_t floor) {
  is_start_[start / 64] |= std::uint64_t{1} << (start % 64);
  lasts_[start] = last;
  floors_[start] = floor;
  queue_.push({floor, start});
}

void Skyline::remove(std::uint32_t start) {
  is_start_[start / 64] &= ~(std::uint64_t{1} << (start % 64));
}

SectionRange Skyline::lowest() {
  for (;;) {
    const Entry& top = queue_.top();
    const bool is_start = (is_start_[top.start / 64] >> (top.start % 64) & 1) != 0;
    if (is_start && floors_[top.start] == top.floor) return {top.start, lasts_[top.start]};
    queue_.pop();
  }
}

void Skyline::raise(SectionRange range, std::int64_t floor) {
  const std::uint32_t start = start_of(range.first);
  const std::uint32_t last = lasts_[start];
  const std::int64_t before = floors_[start];
  std::uint32_t new_start = range.first;
  std::uint32_t new_last = range.last;
  if (start < range.first) {
    lasts_[start] = range.first;
  } else if (start > 0) {
    const std::uint32_t left = start_of(start - 1);
    if (floors_[left] == floor) {
      remove(start);
      new_start = left;
    }
  }
  if (range.last < last) {
    add(range.last, last, before);
  } else if (last < sections_ && floors_[last] == floor) {
    new_last = lasts_[last];
    remove(last);
  }
  add(new_start, new_last, floor);
}

void Skyline::lift(SectionRange range, std::int64_t floor) {
  for (std::uint32_t s = range.first; s < range.last;) {
    const std::uint32_t start = start_of(s);
    const std::uint32_t last = std::min(lasts_[start], range.last);
    if (floors_[start] < floor) raise({s, last}, floor);
    s = last;
  }
}

void Skyline::raise_to_wall(std::uint32_t start) {
  const std::int64_t left = start > 0 ? floors_[start_of(start - 1)] : kNoWall;
  const std::uint32_t last = lasts_[start];
  const std::int64_t right = last < sections_ ? floors_[last] : kNoWall;
  raise({start, last}, left < right ? left : right);
}

}  // namespace ebbtide
