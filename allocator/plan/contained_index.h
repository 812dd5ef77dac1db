// Which of many ranges lies inside a given one and comes first? A k-d tree over first and last.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/plan/sections.h"

namespace ebbtide {

// Owned by one fill; not thread-safe. Build O(n log n); best and erase visit O(sqrt n) nodes at
// worst, some tens in practice.
// Invariant: a node's `best`, `max_first` and `min_last` speak of the entries below it that have
// not been erased.
class ContainedIndex {
 public:
  static constexpr std::uint32_t kNone = ~0U;

  // Entry i is the range with rank i: the lower comes first.
  explicit ContainedIndex(const std::vector<SectionRange>& ranges);

  // The lowest rank among the ranges inside the given one that `accepts(rank)`; kNone if none.
  template <typename Accepts>
  std::uint32_t best(SectionRange inside, const Accepts& accepts) const {
    std::uint32_t found = kNone;
    if (!entries_.empty()) descend(1, inside, accepts, found);
    return found;
  }

  // Requires: the rank has not been erased.
  void erase(std::uint32_t rank);

 private:
  static constexpr std::uint32_t kLeafSize = 8;

  struct Entry {
    SectionRange range;
    std::uint32_t rank;  // kNone once erased
  };
  struct Node {
    std::uint32_t max_first = 0;
    std::uint32_t min_last = kNone;
    std::uint32_t best = kNone;
  };

  void build(std::uint32_t node, std::uint32_t begin, std::uint32_t end, bool by_first);
  void refresh_leaf(std::uint32_t node);
  void refresh_inner(std::uint32_t node);

  template <typename Accepts>
  void descend(std::uint32_t node, SectionRange inside, const Accepts& accepts,
               std::uint32_t& found) const {
    const Node& here = nodes_[node];
    if (here.best >= found || here.max_first < inside.first || here.min_last > inside.last) return;
    if (node >= leaves_) {
      const std::uint32_t leaf = node - leaves_;
      for (std::uint32_t i = leaf_starts_[leaf]; i < leaf_starts_[leaf + 1]; ++i) {
        const Entry& entry = entries_[i];
        if (entry.rank < found && entry.range.first >= inside.first &&
            entry.range.last <= inside.last && accepts(entry.rank)) {
          found = entry.rank;
        }
      }
      return;
    }
    const bool right_first = nodes_[2 * node + 1].best < nodes_[2 * node].best;
    descend(2 * node + (right_first ? 1 : 0), inside, accepts, found);
    descend(2 * node + (right_first ? 0 : 1), inside, accepts, found);
  }

  std::vector<Entry> entries_;              // grouped by leaf
  std::vector<std::uint32_t> positions_;    // of each rank in entries_
  std::vector<std::uint32_t> leaf_starts_;  // leaf k holds [leaf_starts_[k], leaf_starts_[k + 1])
  std::vector<Node> nodes_;                 // a complete binary tree: root 1, leaves from leaves_
  std::uint32_t leaves_ = 1;                // a power of two
};

}  // namespace ebbtide
