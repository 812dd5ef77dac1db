#include "allocator/plan/search_state.h"

#include <algorithm>
#include <limits>

namespace ebbtide {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t alignment) {
  if (alignment == 1) return value;
  if ((alignment & (alignment - 1)) == 0) return (value + alignment - 1) & -alignment;
  return align_up(value, alignment);
}

}  // namespace

SearchState::SearchState(const CompactProblem& problem, const Sections& sections)
    : graph_(problem, sections), problem_(problem), sections_(sections) {
  weights_.assign(sections.count(), 1);
  stamps_.assign(problem.count(), 0);
}

// The state in which nothing is placed. False if that is a dead end already.
bool SearchState::start(std::int64_t capacity) {
  const std::uint32_t n = problem_.count();
  capacity_ = capacity;
  trail_.clear();
  queue_.clear();
  offsets_.assign(n, kUnplaced);
  lowest_.assign(n, 0);
  floors_.assign(sections_.count(), 0);
  totals_.assign(sections_.count(), 0);
  witnesses_.assign(sections_.count(), kNone);
  crossings_.assign(sections_.count(), 0);
  for (std::uint32_t b = 0; b < n; ++b) {
    if (problem_.sizes[b] == 0) {
      offsets_[b] = problem_.fixed[b] == CompactProblem::kFree ? 0 : problem_.fixed[b];
      continue;
    }
    if (problem_.fixed[b] != CompactProblem::kFree) lowest_[b] = problem_.fixed[b];
    if (lowest_[b] + problem_.sizes[b] > capacity) return false;
    const auto ranges = sections_.of(b);
    for (std::uint32_t s = ranges.front().first; s + 1 < ranges.back().last; ++s) ++crossings_[s];
  }
  for (std::uint32_t s = 0; s < sections_.count(); ++s) totals_[s] = sections_.load(s);
  for (std::uint32_t s = 0; s < sections_.count(); ++s) {
    if (totals_[s] > capacity_ || !find_witness(s)) return false;
  }
  return propagate();
}

bool SearchState::fail(std::uint32_t section) {
  ++weights_[section];
  queue_.clear();
  return false;
}

bool SearchState::raise_floor(std::uint32_t section, std::int64_t floor) {
  if (floor <= floors_[section]) return true;
  trail_.push_back({Change::Kind::kFloor, section, floors_[section]});
  floors_[section] = floor;
  if (totals_[section] == 0) return true;
  if (floor + totals_[section] > capacity_) return fail(section);
  queue_.push_back(section);
  return true;
}

// The lowest of the section's unplaced members; the floor is raised to it.
bool SearchState::find_witness(std::uint32_t section) {
  std::uint32_t best = kNone;
  std::int64_t lowest = std::numeric_limits<std::int64_t>::max();
  for (const std::uint32_t b : graph_.members(section)) {
    if (offsets_[b] != kUnplaced || lowest_[b] >= lowest) continue;
    best = b;
    lowest = lowest_[b];
    if (lowest <= floors_[section]) break;
  }
  if (best != witnesses_[section]) {
    trail_.push_back({Change::Kind::kWitness, section, witnesses_[section]});
    witnesses_[section] = best;
  }
  return best == kNone || raise_floor(section, lowest);
}

bool SearchState::raise_lowest(std::uint32_t buffer, std::int64_t offset) {
  offset = round_up(offset, problem_.alignments[buffer]);
  if (offset <= lowest_[buffer]) return true;
  const auto ranges = sections_.of(buffer);
  const std::int64_t fixed = problem_.fixed[buffer];
  if (fixed != CompactProblem::kFree && offset > fixed) return fail(ranges.front().first);
  if (offset + problem_.sizes[buffer] > capacity_) return fail(ranges.front().first);
  trail_.push_back({Change::Kind::kLowest, buffer, lowest_[buffer]});
  lowest_[buffer] = offset;
  for (const SectionRange& range : ranges) {
    for (std::uint32_t s = range.first; s < range.last; ++s) {
      if (witnesses_[s] == buffer && !find_witness(s)) return false;
    }
  }
  return true;
}

bool SearchState::propagate() {
  while (!queue_.empty()) {
    const std::uint32_t section = queue_.back();
    queue_.pop_back();
    const std::int64_t floor = floors_[section];
    for (const std::uint32_t b : graph_.members(section)) {
      if (offsets_[b] == kUnplaced && lowest_[b] < floor && !raise_lowest(b, floor)) return false;
    }
  }
  return true;
}

// Puts the buffer at its lowest beginning. False if that leads to a dead end.
bool SearchState::place(std::uint32_t buffer) {
  const std::int64_t size = problem_.sizes[buffer];
  const std::int64_t end = lowest_[buffer] + size;
  trail_.push_back({Change::Kind::kPlaced, buffer, 0});
  offsets_[buffer] = lowest_[buffer];
  const auto ranges = sections_.of(buffer);
  for (std::uint32_t s = ranges.front().first; s + 1 < ranges.back().last; ++s) --crossings_[s];
  for (const SectionRange& range : ranges) {
    for (std::uint32_t s = range.first; s < range.last; ++s) {
      totals_[s] -= size;
      trail_.push_back({Change::Kind::kFloor, s, floors_[s]});
      floors_[s] = end;
      if (totals_[s] > 0 && end + totals_[s] > capacity_) return fail_placed(buffer, s);
    }
  }
  for (const std::uint32_t other : graph_.neighbours(buffer)) {
    if (offsets_[other] == kUnplaced && lowest_[other] < end && !raise_lowest(other, end))
      return false;
  }
  for (const SectionRange& range : ranges) {
    for (std::uint32_t s = range.first; s < range.last; ++s) {
      if (witnesses_[s] == buffer && !find_witness(s)) return false;
    }
  }
  return propagate();
}

// The rest of the totals, so that undo() finds the buffer taken from all of them.
bool SearchState::fail_placed(std::uint32_t buffer, std::uint32_t section) {
  for (const SectionRange& range : sections_.of(buffer)) {
    for (std::uint32_t s = std::max(range.first, section + 1); s < range.last; ++s)
      totals_[s] -= problem_.sizes[buffer];
  }
  return fail(section);
}

// Nothing begins at the floor of a section: each of the buffers that could have comes to rest on a
// neighbour, which cannot be one that begins at that floor.
bool SearchState::pass_over(const std::vector<std::uint32_t>& passed) {
  constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
  std::vector<std::int64_t> rests(passed.size(), kNever);
  std::int64_t smallest = kNever;
  std::int64_t first_rest = kNever;
  const std::int64_t floor = lowest_[passed.front()];
  ++stamp_;
  for (const std::uint32_t b : passed) stamps_[b] = stamp_;
  for (std::size_t k = 0; k < passed.size(); ++k) {
    smallest = std::min(smallest, problem_.sizes[passed[k]]);
    for (const std::uint32_t other : graph_.neighbours(passed[k])) {
      if (floor + problem_.sizes[other] >= rests[k]) break;
      if (offsets_[other] == kUnplaced && stamps_[other] != stamp_) {
        rests[k] = std::min(rests[k], lowest_[other] + problem_.sizes[other]);
      }
    }
    first_rest = std::min(first_rest, rests[k]);
  }
  if (first_rest == kNever) return fail(sections_.of(passed.front()).front().first);
  for (std::size_t k = 0; k < passed.size(); ++k) {
    if (!raise_lowest(passed[k], std::min(rests[k], first_rest + smallest))) return false;
  }
  return propagate();
}

void SearchState::undo(std::size_t mark) {
  while (trail_.size() > mark) {
    const Change& change = trail_.back();
    switch (change.kind) {
      case Change::Kind::kFloor:
        floors_[change.index] = change.before;
        break;
      case Change::Kind::kLowest:
        lowest_[change.index] = change.before;
        break;
      case Change::Kind::kWitness:
        witnesses_[change.index] = static_cast<std::uint32_t>(change.before);
        break;
      case Change::Kind::kPlaced: {
        const std::uint32_t b = change.index;
        const auto ranges = sections_.of(b);
        offsets_[b] = kUnplaced;
        for (std::uint32_t s = ranges.front().first; s + 1 < ranges.back().last; ++s)
          ++crossings_[s];
        for (const SectionRange& range : ranges) {
          for (std::uint32_t s = range.first; s < range.last; ++s) totals_[s] += problem_.sizes[b];
        }
        break;
      }
    }
    trail_.pop_back();
  }
}

}  // namespace ebbtide
