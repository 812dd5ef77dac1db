// How much of a plan is settled: some buffers placed, bounds on where the others may begin, and the
// way back. What follows from a step is derived at once; Note [Filling valleys] in exact_search.h
// says what.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/search_graph.h"
#include "allocator/plan/sections.h"

namespace ebbtide {

// Owned by one thread. The problem and its sections must outlive it.
//
// Invariants, but within a step that fails: (1) an unplaced buffer begins at lowest() or above, and
// that is no lower than the floor of any section it lives in; (2) a section with unplaced members
// has no lower floor than the least lowest() among them, its witness's; (3) floor() + total() of
// such a section is at most the capacity.
class SearchState {
 public:
  static constexpr std::uint32_t kNone = SearchGraph::kNone;

  SearchState(const CompactProblem& problem, const Sections& sections);

  // The three steps. Each is false if no plan below the capacity completes it: undo() then.
  // Nothing is placed but what has no size. Requires: no fixed buffers overlap.
  bool start(std::int64_t capacity);
  // The buffer begins at its lowest().
  bool place(std::uint32_t buffer);
  // None of the buffers, all that could, begins at the floor of a section.
  bool pass_over(const std::vector<std::uint32_t>& passed);

  // Takes back every step since mark() had this value. Weights stay.
  void undo(std::size_t mark);
  std::size_t mark() const { return trail_.size(); }

  const SearchGraph& graph() const { return graph_; }
  std::int64_t capacity() const { return capacity_; }
  // By buffer; less than zero: not placed.
  const std::vector<std::int64_t>& offsets() const { return offsets_; }
  bool is_placed(std::uint32_t buffer) const { return offsets_[buffer] != kUnplaced; }
  std::int64_t lowest(std::uint32_t buffer) const { return lowest_[buffer]; }
  // No unplaced member of the section begins below.
  std::int64_t floor(std::uint32_t section) const { return floors_[section]; }
  // The sizes still to be placed in the section.
  std::int64_t total(std::uint32_t section) const { return totals_[section]; }
  // How often the section was the dead end, and 1.
  std::uint32_t weight(std::uint32_t section) const { return weights_[section]; }
  // Whether an unplaced buffer lives before the end of the section and after.
  bool is_crossed(std::uint32_t section) const { return crossings_[section] > 0; }

 private:
  static constexpr std::int64_t kUnplaced = -1;

  struct Change {
    enum class Kind : std::uint8_t { kFloor, kLowest, kWitness, kPlaced } kind;
    std::uint32_t index;
    std::int64_t before;
  };

  bool raise_lowest(std::uint32_t buffer, std::int64_t offset);
  bool raise_floor(std::uint32_t section, std::int64_t floor);
  bool find_witness(std::uint32_t section);
  bool propagate();
  bool fail(std::uint32_t section);
  bool fail_placed(std::uint32_t buffer, std::uint32_t section);

  const SearchGraph graph_;
  const CompactProblem& problem_;
  const Sections& sections_;
  std::int64_t capacity_ = 0;
  // By buffer.
  std::vector<std::int64_t> offsets_;
  std::vector<std::int64_t> lowest_;
  std::vector<std::uint32_t> stamps_;  // == stamp_: in the set that pass_over() is at
  std::uint32_t stamp_ = 0;
  // By section.
  std::vector<std::int64_t> floors_;
  std::vector<std::int64_t> totals_;
  std::vector<std::uint32_t> witnesses_;  // or kNone
  std::vector<std::uint32_t> crossings_;  // unplaced buffers in both section s and s + 1
  std::vector<std::uint32_t> weights_;

  std::vector<std::uint32_t> queue_;  // sections whose floor was raised
  std::vector<Change> trail_;
};

}  // namespace ebbtide
