#include "allocator/plan/sections.h"

#include <algorithm>
#include <limits>

namespace ebbtide {
namespace {

// Calls visit(span) for every span that takes room.
template <typename Visit>
void for_each_span(const CompactProblem& problem, const Visit& visit) {
  for (std::uint32_t i = 0; i < problem.count(); ++i) {
    if (problem.sizes[i] == 0) continue;
    for (const Span32& span : problem.spans_of(i)) visit(span);
  }
}

// Which section begins or goes on at a tick: the last tick before a death, once for each run of
// births, ends one, because there the live set is maximal.
class SectionMap {
 public:
  explicit SectionMap(const CompactProblem& problem) {
    std::int32_t low = std::numeric_limits<std::int32_t>::max();
    std::int32_t high = 0;
    std::size_t spans = 0;
    for_each_span(problem, [&](const Span32& span) {
      low = std::min(low, span.birth);
      high = std::max(high, span.death);
      ++spans;
    });
    if (spans == 0) return;
    // Where ticks are dense, as they are in traces, a table saves sorting and searching.
    const auto range = static_cast<std::size_t>(high) - static_cast<std::size_t>(low) + 1;
    if (range <= kDense * spans) {
      tabulate(problem, low, range);
    } else {
      sort(problem, spans);
    }
  }

  // The first section that ends at the tick or later.
  std::uint32_t operator()(std::int32_t tick) const {
    if (!table_.empty()) return table_[static_cast<std::size_t>(tick - origin_)];
    const auto at = std::lower_bound(ends_.begin(), ends_.end(), tick);
    return static_cast<std::uint32_t>(at - ends_.begin());
  }
  std::uint32_t count() const { return count_; }

 private:
  static constexpr std::size_t kDense = 8;

  void tabulate(const CompactProblem& problem, std::int32_t low, std::size_t range) {
    constexpr std::uint8_t kBirth = 1;
    constexpr std::uint8_t kDeath = 2;
    origin_ = low;
    std::vector<std::uint8_t> events(range, 0);
    for_each_span(problem, [&](const Span32& span) {
      events[static_cast<std::size_t>(span.birth - low)] |= kBirth;
      events[static_cast<std::size_t>(span.death - low)] |= kDeath;
    });
    table_.resize(range);
    bool has_births = false;  // since the last section's end
    for (std::size_t tick = 0; tick < range; ++tick) {
      if ((events[tick] & kDeath) != 0 && has_births) {
        ++count_;
        has_births = false;
      }
      table_[tick] = count_;
      has_births |= (events[tick] & kBirth) != 0;
    }
  }

  void sort(const CompactProblem& problem, std::size_t spans) {
    std::vector<std::int32_t> births;
    std::vector<std::int32_t> deaths;
    births.reserve(spans);
    deaths.reserve(spans);
    for_each_span(problem, [&](const Span32& span) {
      births.push_back(span.birth);
      deaths.push_back(span.death);
    });
    std::sort(births.begin(), births.end());
    std::sort(deaths.begin(), deaths.end());
    std::size_t born = 0;
    for (std::size_t died = 0; born < births.size();) {
      while (deaths[died] <= births[born]) ++died;
      while (born < births.size() && births[born] < deaths[died]) ++born;
      ends_.push_back(births[born - 1]);
    }
    count_ = static_cast<std::uint32_t>(ends_.size());
  }

  std::uint32_t count_ = 0;
  std::int32_t origin_ = 0;
  std::vector<std::uint32_t> table_;  // by tick - origin_; empty: ticks are sparse
  std::vector<std::int32_t> ends_;    // the last birth in each section, where ticks are sparse
};

}  // namespace

Sections::Sections(const CompactProblem& problem) {
  const SectionMap section_at(problem);
  std::vector<std::int64_t> changes(section_at.count() + 1, 0);
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
  loads_.reserve(section_at.count());
  for (std::uint32_t s = 0; s < section_at.count(); ++s) {
    load += changes[s];
    loads_.push_back(load);
    max_load_ = std::max(max_load_, load);
  }
}

}  // namespace ebbtide
