// Layers, found in the trace itself: stretches of time in which buffers of the same sizes are born
// in the same order, again and again. No names are needed.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/plan/instance.h"

namespace ebbtide {

// One pass through a layer, and the buffers that live within it and nowhere else.
struct Layer {
  SectionRange sections;               // from the first birth of `buffers` to the last death
  std::vector<std::uint32_t> buffers;  // in an order that equal layers share; two at least
  std::uint32_t kind = 0;              // layers of a kind have equal buffers at equal times
};

struct Layers {
  std::vector<Layer> layers;  // in order of time; disjoint
  std::uint32_t kinds = 0;
};

// Pure. O(n log n). Fixed buffers belong to no layer.
Layers find_layers(const Instance& instance);

}  // namespace ebbtide
