// The greedy orders: ways to say which buffer is placed before which.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/sections.h"

namespace ebbtide {

// What comes first. Ties go by size, then by birth, then by index.
enum class OrderRule {
  kSize,           // the largest
  kCrowd,          // what lives at the most loaded tick, then the next such, as a set; then size
  kArea,           // the largest size x duration
  kSizeDuration,   // the largest; among equals the longest
  kCrowdDuration,  // as kCrowd, then the longest
  kDuration,       // the longest
  kBirth,          // the earliest: what an allocator without a plan would do
};
inline constexpr std::array kOrderRules{
    OrderRule::kSizeDuration,  OrderRule::kCrowd,    OrderRule::kSize, OrderRule::kArea,
    OrderRule::kCrowdDuration, OrderRule::kDuration, OrderRule::kBirth};

// Computes what the rules need once; the problem must outlive it. Not thread-safe.
class GreedyOrders {
 public:
  GreedyOrders(const CompactProblem& problem, const Sections& sections);

  // All buffers, each once. O(n log n).
  std::vector<std::uint32_t> make(OrderRule rule) const;

 private:
  const CompactProblem& problem_;
  std::vector<std::int64_t> durations_;
  std::vector<std::int64_t> crowds_;  // the largest load at any tick of the buffer's life
};

// All buffers, the lowest offset first; ties go by index.
std::vector<std::uint32_t> order_by_offset(const std::vector<std::int64_t>& offsets);

}  // namespace ebbtide
