// A plan of any number of buffers from the bottom up, in O(n log n) and without comparing a buffer
// with those that live beside it: quick enough for a million.
//
// Note [Valleys]: what is placed has a skyline over the sections. The lowest stretch of it, a
// valley, is filled with the buffer that lies inside it and comes first by some rule; when none
// does, it is raised to the lower of its walls and merged with it. So each buffer rests on a
// level floor and nothing can be pushed down. A buffer with several ranges (one that wraps around
// the iteration, one with gaps) is taken when all of them are level with the valley.
// The skyline heuristic of strip packing (Burke, Kendall, Whitwell 2004, "A new placement heuristic
// for the orthogonal stock-cutting problem"), with the time axis fixed.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/sections.h"
#include "allocator/plan/skyline.h"

namespace ebbtide {

// Which buffer of a valley comes first. kCrowd: the one that meets the highest load; the second
// criterion decides among equals.
enum class FillRule : std::uint8_t { kCrowdWidth, kWidth, kCrowdArea, kArea, kSize };
inline constexpr std::array kFillRules{FillRule::kCrowdWidth, FillRule::kWidth,
                                       FillRule::kCrowdArea, FillRule::kArea, FillRule::kSize};

// The buffers in the rule's order. Requires: they take room and live inside `within` only.
std::vector<std::uint32_t> fill_order(const CompactProblem& problem, const Sections& sections,
                                      SectionRange within, std::span<const std::uint32_t> buffers,
                                      FillRule rule);

struct Fill {
  std::int64_t height = 0;  // the highest end
  // First fit in order of offset gives the same plan: every buffer has one range and none was
  // moved up by its alignment. (A hole under a raised valley is as wide as the valley, which the
  // buffers placed later do not fit into; and two holes that touch are never at one height, because
  // what is raised is the lowest of all.)
  bool is_packed = true;
};

// Places the buffers of the order, which live inside `within`, on the skyline of these sections,
// and writes their offsets. Requires: none is fixed. Calls for different buffers may run at the
// same time.
Fill fill_valleys(const CompactProblem& problem, const Sections& sections, SectionRange within,
                  std::span<const std::uint32_t> order, Skyline skyline,
                  std::span<std::int64_t> offsets);

}  // namespace ebbtide
