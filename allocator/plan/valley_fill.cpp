#include "allocator/plan/valley_fill.h"

#include <algorithm>
#include <optional>
#include <span>
#include <tuple>

#include "allocator/base/units.h"
#include "allocator/plan/contained_index.h"
#include "allocator/plan/load_profile.h"

namespace ebbtide {
namespace {

// How many buffers of several ranges are asked whether they are level before a valley is left to
// those of one range: many that are not must not make every step slow.
constexpr int kAsked = 16;

}  // namespace

std::vector<std::uint32_t> fill_order(const CompactProblem& problem, const Sections& sections,
                                      SectionRange within, std::span<const std::uint32_t> buffers,
                                      FillRule rule) {
  struct Entry {
    double first;
    double second;
    double third;
    std::uint32_t buffer;
  };
  std::optional<LoadProfile> profile;
  if (rule == FillRule::kCrowdWidth || rule == FillRule::kCrowdArea) {
    profile.emplace(sections, within);
  }
  std::vector<Entry> entries;
  entries.reserve(buffers.size());
  for (const std::uint32_t b : buffers) {
    double width = 0;
    for (const Span32& span : problem.spans_of(b))
      width += span.death - static_cast<double>(span.birth);
    const double size = static_cast<double>(problem.sizes[b]);
    const double crowd = profile ? static_cast<double>(profile->max_over(sections.of(b))) : 0;
    switch (rule) {
      case FillRule::kCrowdWidth:
      case FillRule::kWidth:
        entries.push_back({crowd, width, size, b});
        break;
      case FillRule::kCrowdArea:
      case FillRule::kArea:
        entries.push_back({crowd, size * width, width, b});
        break;
      case FillRule::kSize:
        entries.push_back({size, width, 0, b});
        break;
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tuple(b.first, b.second, b.third, a.buffer) <
           std::tuple(a.first, a.second, a.third, b.buffer);
  });
  std::vector<std::uint32_t> order;
  order.reserve(entries.size());
  for (const Entry& entry : entries) order.push_back(entry.buffer);
  return order;
}

Fill fill_valleys(const CompactProblem& problem, const Sections& sections, SectionRange within,
                  std::span<const std::uint32_t> order, Skyline skyline,
                  std::span<std::int64_t> offsets) {
  Fill result;
  if (order.empty()) return result;
  const auto shifted = [&](SectionRange range) {
    return SectionRange{range.first - within.first, range.last - within.first};
  };
  std::vector<SectionRange> firsts;  // of each buffer, its first range
  firsts.reserve(order.size());
  for (const std::uint32_t b : order) firsts.push_back(shifted(sections.of(b).front()));
  ContainedIndex waiting(firsts);
  for (std::size_t left = order.size(); left > 0;) {
    const SectionRange valley = skyline.lowest();
    const std::int64_t lowest = skyline.floor_at(valley.first);
    int asked = 0;
    const auto is_level = [&](std::uint32_t rank) {
      const auto ranges = sections.of(order[rank]).subspan(1);
      if (ranges.empty()) return true;
      return asked++ < kAsked && std::ranges::all_of(ranges, [&](const SectionRange& range) {
               return skyline.is_level(shifted(range), lowest);
             });
    };
    const std::uint32_t rank = waiting.best(valley, is_level);
    if (rank == ContainedIndex::kNone) {
      skyline.raise_to_wall(valley.first);
      continue;
    }
    const std::uint32_t b = order[rank];
    waiting.erase(rank);
    --left;
    const std::int64_t offset = align_up(lowest, problem.alignments[b]);
    const std::int64_t end = offset + problem.sizes[b];
    offsets[b] = offset;
    result.height = std::max(result.height, end);
    result.is_packed &= offset == lowest && sections.of(b).size() == 1;
    for (const SectionRange& range : sections.of(b)) skyline.raise(shifted(range), end);
  }
  return result;
}

}  // namespace ebbtide
