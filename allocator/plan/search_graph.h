// Which buffers of a problem meet: what a search over them asks at every state and never changes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/sections.h"

namespace ebbtide {

class SearchGraph {
 public:
  static constexpr std::uint32_t kNone = ~0U;

  SearchGraph(const CompactProblem& problem, const Sections& sections);

  // The buffers that live in a section, by index.
  std::span<const std::uint32_t> members(std::uint32_t section) const {
    return {members_.data() + member_starts_[section],
            members_.data() + member_starts_[section + 1]};
  }
  // The buffers that live when this one does, the smallest first.
  std::span<const std::uint32_t> neighbours(std::uint32_t buffer) const {
    return {neighbours_.data() + neighbour_starts_[buffer],
            neighbours_.data() + neighbour_starts_[buffer + 1]};
  }
  // The next lower index of a buffer with the same sections, size and rules; or kNone. Plans that
  // only exchange the two are the same.
  std::uint32_t twin(std::uint32_t buffer) const { return twins_[buffer]; }
  // Whether any buffer does.
  bool has_several_ranges() const { return has_several_ranges_; }

 private:
  void find_members(const CompactProblem& problem, const Sections& sections);
  void find_neighbours(const CompactProblem& problem, const Sections& sections);
  void find_twins(const CompactProblem& problem, const Sections& sections);

  // Of section or buffer i: [starts[i], starts[i + 1]).
  std::vector<std::uint32_t> member_starts_;
  std::vector<std::uint32_t> members_;
  std::vector<std::uint32_t> neighbour_starts_;
  std::vector<std::uint32_t> neighbours_;
  std::vector<std::uint32_t> twins_;
  bool has_several_ranges_ = false;
};

}  // namespace ebbtide
