// One placement of all buffers in a given order: the step from which every solution is made.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/offset_index.h"

namespace ebbtide {

// Owned by one solve; not thread-safe; keeps its memory between runs. The problem must outlive it.
class Pass {
 public:
  static constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

  explicit Pass(const CompactProblem& problem);

  // Places the fixed buffers at their offsets, then the others in the order given. Returns the
  // height, or kNoLimit as soon as a buffer would end at or above the limit: the offsets are then
  // incomplete. Requires: order holds every buffer once.
  std::int64_t run(std::span<const std::uint32_t> order, FitRule rule,
                   std::int64_t limit = kNoLimit);

  // The same by first fit, for an order whose first `kept` buffers are known to end up at
  // known_offsets, as they do when an earlier run began with the same ones.
  std::int64_t run_after(std::span<const std::uint32_t> order, std::size_t kept,
                         std::span<const std::int64_t> known_offsets, std::int64_t limit);

  const std::vector<std::int64_t>& offsets() const { return offsets_; }

 private:
  void begin();
  // Places one buffer, at `known` unless that is negative.
  void put(std::uint32_t buffer, FitRule rule, std::int64_t known);

  const CompactProblem& problem_;
  OffsetIndex placed_;
  std::vector<std::int64_t> offsets_;
  std::int64_t height_ = 0;
};

}  // namespace ebbtide
