// Lists of byte ranges of an arena.
#pragma once

#include <vector>

#include "allocator/base/units.h"

namespace ebbtide {

// The same bytes as sorted spans of which no two touch.
std::vector<Span> merged(std::vector<Span> spans);

// Whether a span of a sorted, disjoint list has a byte of [offset, offset + size).
bool any_meets(const std::vector<Span>& spans, Offset offset, Bytes size);

}  // namespace ebbtide
