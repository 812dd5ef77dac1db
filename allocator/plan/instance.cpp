#include "allocator/plan/instance.h"

#include <algorithm>
#include <utility>

namespace ebbtide {

Instance::Instance(const Problem& problem) : Instance(compact(problem)) {}

Instance::Instance(CompactProblem compacted)
    : buffers(std::move(compacted)),
      sections(buffers),
      bound(std::max(sections.max_load(), buffers.fixed_top)) {}

}  // namespace ebbtide
