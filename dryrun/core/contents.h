// Which bytes of the simulated memories hold values that were really computed.
//
// Not computed is the default: kernels do nothing, so what they should have written is unknown and
// reads as zero. Derived: computed from such zeros; the bytes are there, but a real device would
// hold others. Not thread-safe: its owner locks. Invariant: segments are disjoint, non-empty, and
// equal neighbours are merged.
#pragma once

#include <cstdint>
#include <map>

#include "dryrun/core/pointer.h"

namespace ebbtide::dryrun {

enum class Content : int { kNotComputed = 0, kDerived = 1, kComputed = 2 };

class Contents {
 public:
  void mark(std::uintptr_t address, std::size_t size, Content content);
  // The least computed byte's content.
  Content least(std::uintptr_t address, std::size_t size) const;

  // Calls visit(begin, size, content) for each stretch of equal content, holes included, in order.
  template <typename Visit>
  void for_each(std::uintptr_t address, std::size_t size, Visit&& visit) const {
    const std::uintptr_t end = address + size;
    std::uintptr_t at = address;
    for (auto it = first_after(address); it != segments_.end() && it->first < end; ++it) {
      const std::uintptr_t begin = it->first < at ? at : it->first;
      if (begin > at) visit(at, begin - at, Content::kNotComputed);
      const std::uintptr_t stop = it->second.end < end ? it->second.end : end;
      visit(begin, stop - begin, it->second.content);
      at = stop;
    }
    if (at < end) visit(at, end - at, Content::kNotComputed);
  }

  std::size_t segment_count() const { return segments_.size(); }
  bool is_valid() const;

 private:
  struct Segment {
    std::uintptr_t end;
    Content content;
  };
  using Segments = std::map<std::uintptr_t, Segment>;

  // The first segment that ends after `address`.
  Segments::const_iterator first_after(std::uintptr_t address) const;
  void erase(std::uintptr_t begin, std::uintptr_t end);

  Segments segments_;
};

}  // namespace ebbtide::dryrun
