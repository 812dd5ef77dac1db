// The sum of live bytes over time, and its maximum over any lifetime.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocator/plan/compact.h"

namespace ebbtide {

// Immutable. Built in O(n log n), asked in O(log n). The time axis is cut at every birth and death
// into sections; load is constant within one.
class LoadProfile {
 public:
  explicit LoadProfile(const CompactProblem& problem);

  // The largest load at any tick of the spans.
  std::int64_t max_over(std::span<const Span32> live) const;

 private:
  std::size_t section_of(std::int32_t tick) const;

  std::vector<std::int32_t> starts_;  // section i begins at starts_[i]
  std::vector<std::vector<std::int64_t>>
      levels_;  // levels_[k][i]: largest of sections [i, i + 2^k)
};

}  // namespace ebbtide
