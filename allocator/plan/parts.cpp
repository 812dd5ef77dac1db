#include "allocator/plan/parts.h"

namespace ebbtide {

Parts::Parts(const CompactProblem& problem, const Sections& sections,
             const std::vector<bool>& left_out) {
  const std::uint32_t last = sections.count();
  const auto is_member = [&](std::uint32_t b) { return !left_out[b] && !sections.of(b).empty(); };
  // How many buffers live in both section s and s + 1, first as differences.
  std::vector<std::int32_t> crossings(last + 1, 0);
  std::vector<std::uint32_t> counts(last, 0);  // of buffers that begin in a section
  for (std::uint32_t b = 0; b < problem.count(); ++b) {
    if (!is_member(b)) continue;
    const auto ranges = sections.of(b);
    ++counts[ranges.front().first];
    ++crossings[ranges.front().first];
    --crossings[ranges.back().last - 1];
  }
  std::vector<std::uint32_t> part_of(last, 0);
  starts_.push_back(0);
  std::int32_t crossing = 0;
  for (std::uint32_t s = 0, first = 0, members = 0; s < last; ++s) {
    crossing += crossings[s];
    members += counts[s];
    part_of[s] = static_cast<std::uint32_t>(ranges_.size());
    if (crossing > 0) continue;
    if (members > 0) {
      ranges_.push_back({first, s + 1});
      starts_.push_back(starts_.back() + members);
    }
    first = s + 1;
    members = 0;
  }
  buffers_.resize(starts_.back());
  std::vector<std::uint32_t> next(starts_.begin(), starts_.end() - 1);
  for (std::uint32_t b = 0; b < problem.count(); ++b) {
    if (is_member(b)) buffers_[next[part_of[sections.of(b).front().first]]++] = b;
  }
}

}  // namespace ebbtide
