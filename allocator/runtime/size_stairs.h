// Sizes that grow with the elements of an input in stairs: the scratch memory of reductions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocator/base/units.h"

namespace ebbtide {

// A size seen of an input of so many elements (batch x length).
struct SizeSample {
  std::int64_t elements = 0;
  Bytes size;
};

// The sizes that max(floor, c * elements, rounded up to a step) may have for `elements`, the largest step first: one for
// each step at which all samples agree on a whole c. The floor is the smallest size, if it was seen of several inputs.
// None where the samples tell too little: it takes two sizes above the floor, or one and the floor.
std::vector<Bytes> sizes_on_stairs(std::span<const SizeSample> samples, std::int64_t elements);

}  // namespace ebbtide
