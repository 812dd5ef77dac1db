// A Problem laid out for the solver's inner loops: flat arrays, ticks in 32 bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocator/plan/problem.h"

namespace ebbtide {

// An Interval whose ticks keep their order and equality, not their value.
struct Span32 {
  std::int32_t birth;
  std::int32_t death;
};

// Belongs to the call that made it; immutable afterwards.
struct CompactProblem {
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> alignments;
  std::vector<std::int64_t> fixed;    // the fixed offset, or kFree
  std::vector<std::uint32_t> starts;  // spans of buffer i: [starts[i], starts[i + 1])
  std::vector<Span32> spans;
  std::vector<std::uint32_t> fixed_buffers;
  std::int64_t fixed_top = 0;  // the highest end of a fixed buffer

  static constexpr std::int64_t kFree = -1;

  std::uint32_t count() const { return static_cast<std::uint32_t>(sizes.size()); }
  std::span<const Span32> spans_of(std::uint32_t buffer) const {
    return {spans.data() + starts[buffer], spans.data() + starts[buffer + 1]};
  }
};

// Requires: check(problem).
CompactProblem compact(const Problem& problem);

}  // namespace ebbtide
