// The sum of live bytes over time, and its maximum over any lifetime.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocator/plan/sections.h"

namespace ebbtide {

// Immutable. Built in O(n) for some sections; asked in O(1).
class LoadProfile {
 public:
  // Speaks of the sections `within`. `sections` must outlive it.
  LoadProfile(const Sections& sections, SectionRange within);

  // The largest load of the ranges, which lie inside; 0 for none.
  std::int64_t max_over(std::span<const SectionRange> ranges) const;

 private:
  static constexpr std::uint32_t kBlock = 16;

  std::int64_t max_of(SectionRange range) const;

  const Sections& sections_;
  std::uint32_t first_;
  // levels_[k][i]: the largest of blocks [i, i + 2^k), each of kBlock sections.
  std::vector<std::vector<std::int64_t>> levels_;
};

}  // namespace ebbtide
