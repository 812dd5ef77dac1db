#include "allocator/plan/search_graph.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ebbtide {

SearchGraph::SearchGraph(const CompactProblem& problem, const Sections& sections) {
  find_members(problem, sections);
  find_neighbours(problem, sections);
  find_twins(problem, sections);
}

void SearchGraph::find_members(const CompactProblem& problem, const Sections& sections) {
  std::vector<std::uint32_t> counts(sections.count() + 1, 0);
  const auto for_each = [&](const auto& visit) {
    for (std::uint32_t b = 0; b < problem.count(); ++b) {
      for (const SectionRange& range : sections.of(b)) {
        for (std::uint32_t s = range.first; s < range.last; ++s) visit(s, b);
      }
    }
  };
  for_each([&](std::uint32_t s, std::uint32_t) { ++counts[s + 1]; });
  std::partial_sum(counts.begin(), counts.end(), counts.begin());
  member_starts_ = counts;
  members_.resize(counts.back());
  for_each([&](std::uint32_t s, std::uint32_t b) { members_[counts[s]++] = b; });
}

// Who lives when a range begins, and who begins in it; by size, for pass_over().
void SearchGraph::find_neighbours(const CompactProblem& problem, const Sections& sections) {
  std::vector<std::vector<std::uint32_t>> beginning(sections.count());
  for (std::uint32_t b = 0; b < problem.count(); ++b) {
    for (const SectionRange& range : sections.of(b)) beginning[range.first].push_back(b);
    has_several_ranges_ |= sections.of(b).size() > 1;
  }
  std::vector<std::uint32_t> seen(problem.count(), kNone);
  neighbour_starts_.push_back(0);
  for (std::uint32_t b = 0; b < problem.count(); ++b) {
    seen[b] = b;
    const auto add = [&](std::span<const std::uint32_t> others) {
      for (const std::uint32_t other : others) {
        if (std::exchange(seen[other], b) != b) neighbours_.push_back(other);
      }
    };
    for (const SectionRange& range : sections.of(b)) {
      add(members(range.first));
      for (std::uint32_t s = range.first + 1; s < range.last; ++s) add(beginning[s]);
    }
    std::sort(neighbours_.begin() + neighbour_starts_.back(), neighbours_.end(),
              [&](std::uint32_t a, std::uint32_t c) {
                return std::pair(problem.sizes[a], a) < std::pair(problem.sizes[c], c);
              });
    neighbour_starts_.push_back(static_cast<std::uint32_t>(neighbours_.size()));
  }
}

void SearchGraph::find_twins(const CompactProblem& problem, const Sections& sections) {
  twins_.assign(problem.count(), kNone);
  for (std::uint32_t b = 0; b < problem.count(); ++b) {
    if (problem.fixed[b] != CompactProblem::kFree) continue;
    for (const std::uint32_t other : neighbours(b)) {
      const bool is_twin = other < b && problem.sizes[other] == problem.sizes[b] &&
                           problem.alignments[other] == problem.alignments[b] &&
                           problem.fixed[other] == CompactProblem::kFree &&
                           std::ranges::equal(sections.of(other), sections.of(b));
      if (is_twin && (twins_[b] == kNone || twins_[b] < other)) twins_[b] = other;
    }
  }
}

}  // namespace ebbtide
