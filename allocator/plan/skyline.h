// The heights reached so far over the sections, as level stretches.
#pragma once

#include <cstdint>
#include <queue>
#include <vector>

#include "allocator/plan/sections.h"

namespace ebbtide {

// Owned by one fill; not thread-safe. Invariants: (1) the stretches cover all sections; (2) two
// that touch have different floors. Requires: at least one section.
class Skyline {
 public:
  // All at floor 0.
  explicit Skyline(std::uint32_t sections);

  // The part of it over the sections [first, last), which become [0, last - first).
  Skyline slice(SectionRange sections) const;

  // The lowest stretch, the leftmost of them. Amortised O(log n).
  SectionRange lowest();
  std::int64_t floor_at(std::uint32_t section) const { return floors_[start_of(section)]; }
  // Whether all of the range has this floor.
  bool is_level(SectionRange range, std::int64_t floor) const {
    const std::uint32_t start = start_of(range.first);
    return floors_[start] == floor && range.last <= lasts_[start];
  }
  // Requires: the range lies inside one stretch, whose floor is below.
  void raise(SectionRange range, std::int64_t floor);
  // No floor of the range is lower than this from now on.
  void lift(SectionRange range, std::int64_t floor);
  // Raises the stretch that begins here to the lower of its walls. Requires: it has a wall.
  void raise_to_wall(std::uint32_t start);

 private:
  struct Entry {
    std::int64_t floor;
    std::uint32_t start;
    // The lowest floor first, then the leftmost.
    bool operator<(const Entry& other) const {
      return floor != other.floor ? floor > other.floor : start > other.start;
    }
  };

  std::uint32_t start_of(std::uint32_t section) const;
  void add(std::uint32_t start, std::uint32_t last, std::int64_t floor);
  void remove(std::uint32_t start);

  std::uint32_t sections_;
  std::vector<std::uint64_t> is_start_;  // one bit for each section
  std::vector<std::uint32_t> lasts_;     // at a start: where its stretch ends
  std::vector<std::int64_t> floors_;     // at a start
  std::priority_queue<Entry> queue_;     // some entries are out of date: lowest() drops them
};

}  // namespace ebbtide
