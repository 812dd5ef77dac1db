#include "allocator/plan/instance.h"

#include <algorithm>
#include <utility>

#include "allocator/plan/lower_bound.h"

namespace ebbtide {

Instance::Instance(const Problem& problem) : Instance(compact(problem)) {
  if (!has_windows(problem)) return;
  // Sections count buffers as whole.
  const std::int64_t largest = *std::max_element(buffers.sizes.begin(), buffers.sizes.end());
  bound = std::max({max_load(problem).value, largest, buffers.fixed_top});
}

Instance::Instance(CompactProblem compacted)
    : buffers(std::move(compacted)),
      sections(buffers),
      bound(std::max(sections.max_load(), buffers.fixed_top)) {}

}  // namespace ebbtide
