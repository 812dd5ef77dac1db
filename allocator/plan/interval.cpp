#include "allocator/plan/interval.h"

#include <algorithm>

namespace ebbtide {

LiveRanges::LiveRanges(std::initializer_list<Interval> intervals) {
  for (const Interval& interval : intervals) push_back(interval);
}

void LiveRanges::push_back(Interval interval) {
  if (size_ < kInline) {
    few_[size_] = interval;
  } else {
    if (size_ == kInline) many_.assign(few_.begin(), few_.end());
    many_.push_back(interval);
  }
  ++size_;
}

bool LiveRanges::operator==(const LiveRanges& other) const {
  return std::equal(begin(), end(), other.begin(), other.end());
}

bool LiveRanges::is_valid() const {
  if (empty()) return false;
  for (std::size_t i = 0; i < size_; ++i) {
    if (!(*this)[i].is_valid()) return false;
    if (i > 0 && (*this)[i].birth < (*this)[i - 1].death) return false;
  }
  return true;
}

bool overlaps(const LiveRanges& a, const LiveRanges& b) {
  const Interval* i = a.begin();
  const Interval* j = b.begin();
  while (i != a.end() && j != b.end()) {
    if (i->overlaps(*j)) return true;
    // The one that dies first cannot meet anything later in the other list.
    i->death < j->death ? ++i : ++j;
  }
  return false;
}

}  // namespace ebbtide
