#include "swap/places.h"

#include <algorithm>
#include <iterator>

#include "allocator/base/check.h"

namespace ebbtide {
namespace {

Bytes align_down(Bytes bytes) { return bytes - Bytes{bytes.value % Places::kAlignment.value}; }

}  // namespace

Places::Places(Bytes capacity) : capacity_(align_down(capacity)) {
  EBBTIDE_CHECK(capacity >= Bytes{0});
  if (capacity_ > Bytes{0}) gaps_[Offset{0}] = capacity_;
}

std::optional<Offset> Places::first_fit(Bytes bytes) const {
  const Bytes size = occupied(bytes);
  for (const auto& [offset, gap] : gaps_) {
    if (size <= gap) return offset;
  }
  return std::nullopt;
}

Bytes Places::room(Bytes wanted, Bytes limit) const {
  Bytes largest;
  for (const auto& [offset, gap] : gaps_) {
    const Bytes end = std::min(Bytes{offset.value} + gap, align_down(limit));
    largest = std::max(largest, end - Bytes{offset.value});
    if (occupied(wanted) <= largest) return wanted;
  }
  return largest;
}

bool Places::is_free(Offset offset, Bytes bytes) const {
  const auto above = gaps_.upper_bound(offset);
  if (above == gaps_.begin()) return false;
  const auto& [gap_offset, gap] = *std::prev(above);
  return offset + occupied(bytes) <= gap_offset + gap;
}

void Places::take(Offset offset, Bytes bytes) {
  const Bytes size = occupied(bytes);
  EBBTIDE_CHECK(bytes > Bytes{0} && is_free(offset, bytes));
  const auto found = std::prev(gaps_.upper_bound(offset));
  const auto [gap_offset, gap] = *found;
  const Offset end = offset + size;
  const Offset gap_end = gap_offset + gap;
  if (gap_offset < offset) {
    found->second = offset - gap_offset;
  } else {
    gaps_.erase(found);
  }
  if (end < gap_end) gaps_[end] = gap_end - end;
  taken_ += size;
  peak_taken_ = std::max(peak_taken_, taken_);
  EBBTIDE_DCHECK(is_valid());
}

void Places::give_back(Offset offset, Bytes bytes) {
  const Bytes size = occupied(bytes);
  EBBTIDE_CHECK(size <= taken_);
  taken_ -= size;
  Offset begin = offset;
  Offset end = offset + size;
  auto above = gaps_.lower_bound(offset);
  if (above != gaps_.begin()) {
    const auto below = std::prev(above);
    EBBTIDE_CHECK(below->first + below->second <= offset);
    if (below->first + below->second == offset) {
      begin = below->first;
      gaps_.erase(below);
    }
  }
  if (above != gaps_.end()) {
    EBBTIDE_CHECK(end <= above->first);
    if (end == above->first) {
      end = above->first + above->second;
      gaps_.erase(above);
    }
  }
  gaps_[begin] = end - begin;
  EBBTIDE_DCHECK(is_valid());
}

bool Places::is_valid() const {
  Bytes free;
  Offset end{-1};
  for (const auto& [offset, gap] : gaps_) {
    if (offset <= end || gap <= Bytes{0} || offset.value % kAlignment.value != 0) return false;
    end = offset + gap;
    free += gap;
  }
  return end.value <= capacity_.value && free + taken_ == capacity_;
}

}  // namespace ebbtide
