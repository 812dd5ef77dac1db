// One plan for every length: sizes as functions of a length (tokens, batch), seen at some lengths.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/plan/anytime.h"
#include "allocator/plan/problem.h"

namespace ebbtide {

// One length at which the program was observed: the sizes of its buffers, in the problem's order.
struct ObservedLength {
  std::int64_t length = 0;
  std::vector<Bytes> sizes;
};

// A buffer's size at every length. Between two observed lengths and beyond the last the size lies
// on the line through the two nearest ones, rounded up to the granule; below the first, too, but
// never below zero. Immutable.
//
// Note [One plan for every length]: a plan in which each buffer has room for its largest size up to
// a length L is valid for every length up to L, because smaller buffers at the same offsets overlap
// no more than larger ones. size_up_to() is that largest size.
class ParametricSizes {
 public:
  // Requires of `observed`: at least two different lengths, each positive, with one size for each
  // buffer, none negative: else kInvalidArgument. `granule` is what sizes are multiples of.
  static Result<ParametricSizes> fit(std::vector<ObservedLength> observed, Bytes granule = {512});

  std::size_t count() const { return observed_.front().sizes.size(); }
  Bytes size_at(std::size_t buffer, std::int64_t length) const;
  // The largest of size_at(buffer, 1 ... length).
  Bytes size_up_to(std::size_t buffer, std::int64_t length) const;

 private:
  ParametricSizes(std::vector<ObservedLength> observed, Bytes granule)
      : observed_(std::move(observed)), granule_(granule) {}

  std::vector<ObservedLength> observed_;  // by length, all different
  Bytes granule_;
};

// The problem at a length: the same live ranges, each buffer as large as it is at any length up to
// this one. Requires: sizes.count() buffers. kInvalidArgument when check() refuses it (too large).
Result<Problem> problem_up_to(const Problem& problem, const ParametricSizes& sizes,
                              std::int64_t length);

// The longest length up to `longest` with a plan that fits the capacity, and that plan: it is valid
// for every shorter length. Bisection over lengths, because room only grows with them; each step
// takes `options.time_limit` at most. `is_proved`: one more does not fit, or `longest` does.
// kInfeasible when length 1 has no plan that fits.
struct LongestLength {
  std::int64_t length = 0;
  AnytimePlan plan;
  bool is_proved = false;
};
Result<LongestLength> longest_length(const Problem& problem, const ParametricSizes& sizes,
                                     Bytes capacity, std::int64_t longest,
                                     const AnytimeOptions& options = {});

}  // namespace ebbtide
