#include "allocator/plan/pass.h"

#include <algorithm>

namespace ebbtide {
namespace {
constexpr std::int64_t kUnknown = -1;
}

Pass::Pass(const CompactProblem& problem) : problem_(problem), offsets_(problem.count(), 0) {}

void Pass::begin() {
  placed_.clear();
  height_ = problem_.fixed_top;
  for (const std::uint32_t i : problem_.fixed_buffers) {
    offsets_[i] = problem_.fixed[i];
    if (problem_.sizes[i] > 0) placed_.insert(problem_.spans_of(i), offsets_[i], problem_.sizes[i]);
  }
}

void Pass::put(std::uint32_t buffer, FitRule rule, std::int64_t known) {
  if (problem_.fixed[buffer] != CompactProblem::kFree) return;  // placed by begin()
  const std::int64_t size = problem_.sizes[buffer];
  if (size == 0) {
    offsets_[buffer] = 0;
    return;
  }
  const auto live = problem_.spans_of(buffer);
  const std::int64_t offset =
      known >= 0 ? known : placed_.find(live, size, problem_.alignments[buffer], rule);
  offsets_[buffer] = offset;
  placed_.insert(live, offset, size);
  height_ = std::max(height_, offset + size);
}

std::int64_t Pass::run(std::span<const std::uint32_t> order, FitRule rule, std::int64_t limit) {
  begin();
  for (const std::uint32_t i : order) {
    put(i, rule, kUnknown);
    if (height_ >= limit) return kNoLimit;
  }
  return height_;
}

std::int64_t Pass::run_after(std::span<const std::uint32_t> order, std::size_t kept,
                             std::span<const std::int64_t> known_offsets, std::int64_t limit) {
  begin();
  for (std::size_t k = 0; k < order.size(); ++k) {
    put(order[k], FitRule::kFirst, k < kept ? known_offsets[order[k]] : kUnknown);
    if (height_ >= limit) return kNoLimit;
  }
  return height_;
}

}  // namespace ebbtide
