#include "allocator/plan/instance.h"

#include <algorithm>

namespace ebbtide {

Instance::Instance(const Problem& problem)
    : buffers(compact(problem)),
      sections(buffers),
      bound(std::max(sections.max_load(), buffers.fixed_top)) {}

}  // namespace ebbtide
