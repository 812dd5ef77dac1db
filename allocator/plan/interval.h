// Half-open stretches of ticks, and the short sorted lists of them that a buffer lives in.
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <vector>

#include "allocator/base/units.h"

namespace ebbtide {

// [birth, death): a buffer that dies at a tick and one that is born at it may share an address.
struct Interval {
  Tick birth;
  Tick death;

  bool operator==(const Interval&) const = default;
  constexpr bool is_valid() const { return birth < death; }
  constexpr bool overlaps(const Interval& other) const {
    return birth < other.death && other.birth < death;
  }
};

// A list of intervals that needs no heap for up to kInline of them, which is nearly every buffer:
// one for an ordinary lifetime, two for one that wraps around the iteration boundary.
// A value type; is_valid() is what a Problem asks of it.
class LiveRanges {
 public:
  static constexpr std::size_t kInline = 2;

  LiveRanges() = default;
  LiveRanges(std::initializer_list<Interval> intervals);

  void push_back(Interval interval);
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const Interval* begin() const { return size_ <= kInline ? few_.data() : many_.data(); }
  const Interval* end() const { return begin() + size_; }
  const Interval& operator[](std::size_t i) const { return begin()[i]; }
  const Interval& front() const { return *begin(); }
  const Interval& back() const { return begin()[size_ - 1]; }
  bool operator==(const LiveRanges& other) const;

  // At least one interval, each valid, in order of time, not overlapping (touching is allowed).
  bool is_valid() const;

 private:
  std::array<Interval, kInline> few_{};  // holds all of them while size_ <= kInline
  std::vector<Interval> many_;           // holds all of them otherwise
  std::size_t size_ = 0;
};

bool overlaps(const LiveRanges& a, const LiveRanges& b);

}  // namespace ebbtide
