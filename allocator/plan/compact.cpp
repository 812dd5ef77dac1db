#include "allocator/plan/compact.h"

#include <algorithm>
#include <limits>

namespace ebbtide {
namespace {

// Ticks to 32 bits: by subtraction where they fit, which costs nothing, else by rank.
class TickMap {
 public:
  explicit TickMap(const Problem& problem) {
    std::int64_t low = std::numeric_limits<std::int64_t>::max();
    std::int64_t high = std::numeric_limits<std::int64_t>::min();
    for (const Buffer& buffer : problem.buffers) {
      low = std::min(low, buffer.live.front().birth.value);
      high = std::max(high, buffer.live.back().death.value);
    }
    origin_ = low;
    // Unsigned, because the difference of two ticks may not fit a signed 64-bit number.
    const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
    if (range >= static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max()))
      rank(problem);
  }

  std::int32_t operator()(Tick tick) const {
    if (ranks_.empty()) return static_cast<std::int32_t>(tick.value - origin_);
    const auto at = std::lower_bound(ranks_.begin(), ranks_.end(), tick.value);
    return static_cast<std::int32_t>(at - ranks_.begin());
  }

 private:
  void rank(const Problem& problem) {
    for (const Buffer& buffer : problem.buffers) {
      for (const Interval& interval : buffer.live) {
        ranks_.push_back(interval.birth.value);
        ranks_.push_back(interval.death.value);
      }
    }
    std::sort(ranks_.begin(), ranks_.end());
    ranks_.erase(std::unique(ranks_.begin(), ranks_.end()), ranks_.end());
  }

  std::int64_t origin_ = 0;
  std::vector<std::int64_t> ranks_;
};

}  // namespace

CompactProblem compact(const Problem& problem) {
  CompactProblem result;
  const std::size_t n = problem.buffers.size();
  result.sizes.reserve(n);
  result.alignments.reserve(n);
  result.fixed.reserve(n);
  result.starts.reserve(n + 1);
  result.spans.reserve(n + n / 4);
  result.starts.push_back(0);
  const TickMap map(problem);
  for (std::uint32_t i = 0; i < n; ++i) {
    const Buffer& buffer = problem.buffers[i];
    result.sizes.push_back(buffer.size.value);
    result.alignments.push_back(buffer.alignment.value);
    result.fixed.push_back(buffer.fixed ? buffer.fixed->value : CompactProblem::kFree);
    for (const Interval& interval : buffer.live) {
      result.spans.push_back({map(interval.birth), map(interval.death)});
    }
    result.starts.push_back(static_cast<std::uint32_t>(result.spans.size()));
    if (!buffer.fixed) continue;
    result.fixed_buffers.push_back(i);
    result.fixed_top = std::max(result.fixed_top, buffer.fixed->value + buffer.size.value);
  }
  return result;
}

}  // namespace ebbtide
