// A sweep over time that finds two live buffers at overlapping offsets. It serves the validator
// and check(): it knows nothing of any solver.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "allocator/base/units.h"
#include "allocator/plan/interval.h"

namespace ebbtide {

// A buffer at its place. Requires: size > 0, offset >= 0, offset + size representable.
struct PlacedRange {
  std::uint32_t index;
  Offset offset;
  Bytes size;
  const LiveRanges* live;
};

// The indices of two that are live together and share an address, at the earliest tick where that
// happens; nothing when there is no such pair. O(n log n).
std::optional<std::pair<std::uint32_t, std::uint32_t>> find_overlap(
    std::span<const PlacedRange> placed);

}  // namespace ebbtide
