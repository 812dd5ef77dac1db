#include "allocator/plan/sections.h"

#include <algorithm>

namespace ebbtide {
namespace {

// The last tick before a death, once for each run of births: there the live set is maximal.
std::vector<std::int32_t> section_ticks(const CompactProblem& problem) {
  std::vector<std::int32_t> births;
  std::vector<std::int32_t> deaths;
  births.reserve(problem.spans.size());
  deaths.reserve(problem.spans.size());
  for (std::uint32_t i = 0; i < problem.count(); ++i) {
    if (problem.sizes[i] == 0) continue;
    for (const Span32& span : problem.spans_of(i)) {
      births.push_back(span.birth);
      deaths.push_back(span.death);
    }
  }
  std::sort(births.begin(), births.end());
  std::sort(deaths.begin(), deaths.end());
  std::vector<std::int32_t> ticks;
  std::size_t born = 0;
  for (std::size_t died = 0; born < births.size();) {
    while (deaths[died] <= births[born]) ++died;
    while (born < births.size() && births[born] < deaths[died]) ++born;
    ticks.push_back(births[born - 1]);
  }
  return ticks;
}

}  // namespace

Sections::Sections(const CompactProblem& problem) {
  const std::vector<std::int32_t> ticks = section_ticks(problem);
  const auto section_at = [&](std::int32_t tick) {
    const auto at = std::lower_bound(ticks.begin(), ticks.end(), tick);
    return static_cast<std::uint32_t>(at - ticks.begin());
  };
  std::vector<std::int64_t> changes(ticks.size() + 1, 0);
  starts_.reserve(problem.count() + 1);
  ranges_.reserve(problem.spans.size());
  starts_.push_back(0);
  for (std::uint32_t i = 0; i < problem.count(); ++i) {
    const std::size_t begin = ranges_.size();
    if (problem.sizes[i] > 0) {
      for (const Span32& span : problem.spans_of(i)) {
        const SectionRange range{section_at(span.birth), section_at(span.death)};
        if (ranges_.size() > begin && ranges_.back().last == range.first) {
          ranges_.back().last = range.last;
        } else {
          ranges_.push_back(range);
        }
        changes[range.first] += problem.sizes[i];
        changes[range.last] -= problem.sizes[i];
      }
    }
    starts_.push_back(static_cast<std::uint32_t>(ranges_.size()));
  }
  std::int64_t load = 0;
  loads_.reserve(ticks.size());
  for (std::size_t s = 0; s < ticks.size(); ++s) {
    load += changes[s];
    loads_.push_back(load);
    max_load_ = std::max(max_load_, load);
  }
}

}  // namespace ebbtide
