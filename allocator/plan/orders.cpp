#include "allocator/plan/orders.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "allocator/plan/load_profile.h"

namespace ebbtide {

GreedyOrders::GreedyOrders(const CompactProblem& problem, const Sections& sections)
    : problem_(problem) {
  const LoadProfile profile(sections, {0, sections.count()});
  durations_.reserve(problem.count());
  crowds_.reserve(problem.count());
  for (std::uint32_t i = 0; i < problem.count(); ++i) {
    std::int64_t duration = 0;
    for (const Span32& span : problem.spans_of(i)) {
      duration += std::int64_t{span.death} - span.birth;
    }
    durations_.push_back(duration);
    crowds_.push_back(profile.max_over(sections.of(i)));
  }
}

std::vector<std::uint32_t> GreedyOrders::make(OrderRule rule) const {
  struct Entry {
    double first;  // exact below 2^53; above, near-equal keys count as equal
    std::int64_t second;
    std::int64_t size;
    std::int32_t birth;
    std::uint32_t index;
  };
  const auto entry_of = [&](std::uint32_t i) {
    const std::int64_t size = problem_.sizes[i];
    const std::int64_t duration = durations_[i];
    const std::int32_t birth = problem_.spans_of(i).front().birth;
    switch (rule) {
      case OrderRule::kSize:
        return Entry{static_cast<double>(size), 0, size, birth, i};
      case OrderRule::kCrowd:
        return Entry{static_cast<double>(crowds_[i]), 0, size, birth, i};
      case OrderRule::kArea:
        // In floating point, where the product cannot overflow.
        return Entry{static_cast<double>(size) * static_cast<double>(duration), 0, size, birth, i};
      case OrderRule::kSizeDuration:
        return Entry{static_cast<double>(size), duration, size, birth, i};
      case OrderRule::kCrowdDuration:
        return Entry{static_cast<double>(crowds_[i]), duration, size, birth, i};
      case OrderRule::kDuration:
        return Entry{static_cast<double>(duration), 0, size, birth, i};
      case OrderRule::kBirth:
        return Entry{-static_cast<double>(birth), 0, size, birth, i};
    }
    return Entry{};
  };
  std::vector<Entry> entries;
  entries.reserve(problem_.count());
  for (std::uint32_t i = 0; i < problem_.count(); ++i) entries.push_back(entry_of(i));
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tuple(b.first, b.second, b.size, a.birth, a.index) <
           std::tuple(a.first, a.second, a.size, b.birth, b.index);
  });
  std::vector<std::uint32_t> order;
  order.reserve(entries.size());
  for (const Entry& entry : entries) order.push_back(entry.index);
  return order;
}

std::vector<std::uint32_t> order_by_offset(const std::vector<std::int64_t>& offsets) {
  std::vector<std::pair<std::int64_t, std::uint32_t>> keys;
  keys.reserve(offsets.size());
  for (std::uint32_t b = 0; b < offsets.size(); ++b) keys.emplace_back(offsets[b], b);
  std::sort(keys.begin(), keys.end());
  std::vector<std::uint32_t> order;
  order.reserve(keys.size());
  for (const auto& [offset, b] : keys) order.push_back(b);
  return order;
}

}  // namespace ebbtide
