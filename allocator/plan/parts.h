// A problem cut in time: where no buffer lives on both sides of a moment, what comes before and
// what comes after can be planned apart, in the same bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/sections.h"

namespace ebbtide {

// Immutable. O(n) to build. Buffers of size zero are in no part.
class Parts {
 public:
  // Of the buffers that are not `left_out`, which has an entry for each.
  Parts(const CompactProblem& problem, const Sections& sections, const std::vector<bool>& left_out);

  std::size_t count() const { return ranges_.size(); }
  SectionRange sections(std::size_t part) const { return ranges_[part]; }
  // In the problem's order; never empty.
  std::span<const std::uint32_t> buffers(std::size_t part) const {
    return {buffers_.data() + starts_[part], buffers_.data() + starts_[part + 1]};
  }

 private:
  std::vector<SectionRange> ranges_;   // of the parts, in order of time
  std::vector<std::uint32_t> starts_;  // part k holds buffers_[starts_[k], starts_[k + 1])
  std::vector<std::uint32_t> buffers_;
};

}  // namespace ebbtide
