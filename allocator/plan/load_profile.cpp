#include "allocator/plan/load_profile.h"

#include <algorithm>
#include <bit>

namespace ebbtide {

LoadProfile::LoadProfile(const CompactProblem& problem) {
  starts_.reserve(problem.spans.size() * 2);
  for (const Span32& span : problem.spans) {
    starts_.push_back(span.birth);
    starts_.push_back(span.death);
  }
  std::sort(starts_.begin(), starts_.end());
  starts_.erase(std::unique(starts_.begin(), starts_.end()), starts_.end());
  std::vector<std::int64_t> loads(starts_.size(), 0);
  for (std::uint32_t i = 0; i < problem.count(); ++i) {
    for (const Span32& span : problem.spans_of(i)) {
      loads[section_of(span.birth)] += problem.sizes[i];
      loads[section_of(span.death)] -= problem.sizes[i];
    }
  }
  for (std::size_t i = 1; i < loads.size(); ++i) loads[i] += loads[i - 1];
  levels_.push_back(std::move(loads));
  for (std::size_t width = 1; width * 2 <= starts_.size(); width *= 2) {
    const std::vector<std::int64_t>& below = levels_.back();
    std::vector<std::int64_t> level(starts_.size() - width * 2 + 1);
    for (std::size_t i = 0; i < level.size(); ++i) level[i] = std::max(below[i], below[i + width]);
    levels_.push_back(std::move(level));
  }
}

std::size_t LoadProfile::section_of(std::int32_t tick) const {
  const auto at = std::lower_bound(starts_.begin(), starts_.end(), tick);
  return static_cast<std::size_t>(at - starts_.begin());
}

std::int64_t LoadProfile::max_over(std::span<const Span32> live) const {
  std::int64_t load = 0;
  for (const Span32& span : live) {
    const std::size_t from = section_of(span.birth);
    const std::size_t to = section_of(span.death);
    const auto k = static_cast<std::size_t>(std::bit_width(to - from) - 1);
    const std::vector<std::int64_t>& level = levels_[k];
    load = std::max({load, level[from], level[to - (std::size_t{1} << k)]});
  }
  return load;
}

}  // namespace ebbtide
