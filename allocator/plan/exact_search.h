// Does a problem fit into a capacity? A complete search for problems of up to some hundreds of
// buffers: it ends with a plan, with the proof that there is none, or when its effort is spent.
//
// Note [Filling valleys]: a state is a set of buffers that are not placed yet and, for each section
// (sections.h), a floor below which none of them may begin. Take the section whose floor f is
// lowest, or lowest among its neighbours (a valley). In any plan that completes the state either
// one of the section's buffers begins at f, and then it rests on floors that all are f, so that
// nothing can come below it later; or none does, and the floor may be raised. These are the
// branches: they are disjoint, so no plan is met twice, and complete. What is derived at every
// state, until nothing changes:
//   - a buffer begins no lower than the highest floor that it covers;
//   - a floor is no lower than the lowest beginning of its buffers (MiniMalloc's "unallocated
//     floor"): the bytes between are lost;
//   - floor + what is still to be placed in the section <= capacity, or the state is a dead end;
//   - a buffer that was passed over at f comes to rest on another one, which adds at least that
//     one's size (plans with buffers that rest on nothing can be pushed down: "dominance").
// Where no buffer crosses between two sections any more, the parts are solved apart. A part that
// was a dead end once is one wherever it comes again: its buffers with their lowest beginnings are
// remembered (a table of failures, kept over restarts and, because failing at one capacity is
// failing at every lower one, over capacities).
// After Moffitt, MiniMalloc (ASPLOS'23 vol. 4), sections 3 to 5, for sections, canonical plans,
// dominance and decomposition; branching, the raised floors and the table are ours.
#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/search_state.h"
#include "allocator/plan/sections.h"

namespace ebbtide {

enum class SearchOutcome : std::uint8_t { kFound, kImpossible, kSpent };

// What is tried first among the buffers that may begin at a floor: the one with the largest ...
enum class Preference : std::uint8_t { kWidth, kArea, kSize, kSizeRootWidth };

// Which valley is filled first.
enum class ValleyRule : std::uint8_t {
  kTightest,   // with the least capacity to lose
  kConflicts,  // that was the dead end often, and is tight
  kLowest,
};

struct SearchOptions {
  std::int64_t nodes = 1000;  // states to visit at most
  ValleyRule valley_rule = ValleyRule::kTightest;
  Preference preference = Preference::kWidth;
  double noise = 0;  // each preference is multiplied by a random number in 1 +- noise
  std::uint64_t seed = 1;
  std::function<bool()> should_stop;  // asked every some nodes
};

// Owned by one thread; deterministic by its arguments. The problem must outlive it.
class ExactSearch {
 public:
  ExactSearch(const CompactProblem& problem, const Sections& sections);

  // Looks for a plan no higher than the capacity. kImpossible is a proof. What earlier runs learnt
  // about dead ends is kept. Requires: no fixed buffers overlap.
  SearchOutcome run(std::int64_t capacity, const SearchOptions& options);

  // The plan, after kFound.
  const std::vector<std::int64_t>& offsets() const { return state_.offsets(); }
  std::int64_t nodes_visited() const { return visited_; }

 private:
  static constexpr std::uint32_t kNone = SearchGraph::kNone;

  // Sections [first, last) that no buffer leaves, and the buffers in them that are not placed.
  struct Part {
    std::uint32_t first;
    std::uint32_t last;
    std::vector<std::uint32_t> buffers;
  };
  struct Key {
    std::uint64_t low;
    std::uint64_t high;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const { return key.low; }
  };

  void rank(const SearchOptions& options);
  SearchOutcome solve(const Part& part, std::uint32_t depth);
  SearchOutcome solve_parts(const Part& whole, std::uint32_t depth);
  std::vector<Part> split(const Part& whole) const;
  bool is_wall(const Part& part, std::uint32_t s, std::int64_t floor) const;
  double urgency(std::uint32_t section, std::uint32_t weight) const;
  std::uint32_t choose_section(const Part& part) const;
  std::vector<std::uint32_t> candidates(std::uint32_t section) const;
  Key key_of(const Part& part) const;

  const CompactProblem& problem_;
  const Sections& sections_;
  SearchState state_;
  std::unordered_map<Key, std::int64_t, KeyHash> failures_;  // to the highest capacity that failed

  // Of this run.
  std::function<bool()> should_stop_;
  ValleyRule valley_rule_ = ValleyRule::kTightest;
  std::vector<std::uint32_t> ranks_;
  std::int64_t left_ = 0;  // states to visit

  std::int64_t visited_ = 0;  // of all runs
};

}  // namespace ebbtide
