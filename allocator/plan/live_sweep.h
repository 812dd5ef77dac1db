// A sweep over time that finds two live buffers at overlapping offsets. It serves the validator
// and check(): it knows nothing of any solver.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "allocator/base/units.h"
#include "allocator/plan/problem.h"

namespace ebbtide {

// Bytes at their place for a stretch of time. Requires: size > 0, offset >= 0, offset + size
// representable.
struct PlacedRange {
  std::uint32_t index;  // of the buffer
  std::uint32_t arena;
  Offset offset;
  Bytes size;
  Interval when;
};

// What a buffer at an offset occupies, one range for each segment of its life; nothing where it
// takes no room. Requires: no end overflows.
void add_placed(const Buffer& buffer, std::uint32_t index, Offset offset,
                std::vector<PlacedRange>& placed);

// The indices of two that are live together and share an address of one arena, at the earliest tick
// where that happens; nothing when there is no such pair. O(n log n).
std::optional<std::pair<std::uint32_t, std::uint32_t>> find_overlap(
    std::span<const PlacedRange> placed);

}  // namespace ebbtide
