#include "allocator/plan/contained_index.h"

#include <algorithm>

namespace ebbtide {

ContainedIndex::ContainedIndex(const std::vector<SectionRange>& ranges) {
  const auto count = static_cast<std::uint32_t>(ranges.size());
  entries_.reserve(count);
  for (std::uint32_t rank = 0; rank < count; ++rank) entries_.push_back({ranges[rank], rank});
  while (leaves_ * kLeafSize < count) leaves_ *= 2;
  nodes_.resize(std::size_t{2} * leaves_);
  leaf_starts_.assign(leaves_ + 1, count);
  build(1, 0, count, true);
  for (std::uint32_t node = 2 * leaves_ - 1; node >= leaves_; --node) refresh_leaf(node);
  for (std::uint32_t node = leaves_ - 1; node > 0; --node) refresh_inner(node);
  positions_.resize(count);
  for (std::uint32_t i = 0; i < count; ++i) positions_[entries_[i].rank] = i;
}

void ContainedIndex::build(std::uint32_t node, std::uint32_t begin, std::uint32_t end,
                           bool by_first) {
  if (node >= leaves_) {
    leaf_starts_[node - leaves_] = begin;
    return;
  }
  const std::uint32_t middle = begin + (end - begin) / 2;
  std::nth_element(entries_.begin() + begin, entries_.begin() + middle, entries_.begin() + end,
                   [&](const Entry& a, const Entry& b) {
                     const std::uint32_t x = by_first ? a.range.first : a.range.last;
                     const std::uint32_t y = by_first ? b.range.first : b.range.last;
                     return x != y ? x < y : a.rank < b.rank;
                   });
  build(2 * node, begin, middle, !by_first);
  build(2 * node + 1, middle, end, !by_first);
}

void ContainedIndex::refresh_leaf(std::uint32_t node) {
  Node fresh;
  const std::uint32_t leaf = node - leaves_;
  for (std::uint32_t i = leaf_starts_[leaf]; i < leaf_starts_[leaf + 1]; ++i) {
    const Entry& entry = entries_[i];
    if (entry.rank == kNone) continue;
    fresh.max_first = std::max(fresh.max_first, entry.range.first);
    fresh.min_last = std::min(fresh.min_last, entry.range.last);
    fresh.best = std::min(fresh.best, entry.rank);
  }
  nodes_[node] = fresh;
}

void ContainedIndex::refresh_inner(std::uint32_t node) {
  const Node& a = nodes_[2 * node];
  const Node& b = nodes_[2 * node + 1];
  nodes_[node] = {std::max(a.max_first, b.max_first), std::min(a.min_last, b.min_last),
                  std::min(a.best, b.best)};
}

void ContainedIndex::erase(std::uint32_t rank) {
  const std::uint32_t at = positions_[rank];
  entries_[at].rank = kNone;
  const auto leaf =
      std::upper_bound(leaf_starts_.begin(), leaf_starts_.end(), at) - leaf_starts_.begin() - 1;
  std::uint32_t node = leaves_ + static_cast<std::uint32_t>(leaf);
  refresh_leaf(node);
  for (node /= 2; node > 0; node /= 2) refresh_inner(node);
}

}  // namespace ebbtide
