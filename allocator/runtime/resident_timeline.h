// Who lives across rounds, and when, on one timeline: all programs of a book laid end to end.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/plan/problem.h"
#include "allocator/runtime/program_book.h"

namespace ebbtide {

// A resident and the intervals in which it is alive, sorted and apart.
struct Resident {
  RootId root;
  Bytes size;
  std::vector<Interval> live;
  bool grows = false;  // with the input

  std::int64_t ticks_alive() const {
    std::int64_t sum = 0;
    for (const Interval& interval : live) sum += interval.death - interval.birth;
    return sum;
  }
};

bool are_alive_together(const Resident& a, const Resident& b);

// What outlives the round is the resident of its root. (One that is born while its predecessor still lives has another
// root, see ProgramBook::take_turns.)
bool is_resident(const Program& program, std::size_t node);

// Value type: that of the book at construction. A program takes one tick per node and one for what lives at its end.
class ResidentTimeline {
 public:
  ResidentTimeline() = default;
  explicit ResidentTimeline(const ProgramBook& book);

  const std::vector<Resident>& residents() const { return residents_; }  // sorted by root
  bool contains(RootId root) const;
  Tick begin_of(std::size_t program) const { return begins_[program]; }
  Tick end() const { return end_; }
  // The order in which residents are best placed.
  std::vector<std::uint32_t> packing_order() const;
  // A tick of the program's own, at most that of its end.
  static Tick clipped(Tick tick, const Program& program);

 private:
  void add_program(const ProgramBook& book, const Program& program);
  Resident* add_interval(RootId root, Bytes size, Tick birth, Tick death);

  std::vector<Tick> begins_;  // of every program
  std::vector<Resident> residents_;
  Tick end_;
};

}  // namespace ebbtide
