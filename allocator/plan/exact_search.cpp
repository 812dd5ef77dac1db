#include "allocator/plan/exact_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>

namespace ebbtide {
namespace {

// Each level of the recursion takes half a kilobyte of stack.
constexpr std::uint32_t kDeepest = 4000;
constexpr std::size_t kMostFailures = 1'000'000;
constexpr std::int64_t kAskEvery = 64;

std::int64_t round_up(std::int64_t value, std::int64_t alignment) {
  if (alignment == 1) return value;
  if ((alignment & (alignment - 1)) == 0) return (value + alignment - 1) & -alignment;
  return align_up(value, alignment);
}

// splitmix64's finaliser.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

ExactSearch::ExactSearch(const CompactProblem& problem, const Sections& sections)
    : problem_(problem), sections_(sections) {
  find_members();
  find_neighbours();
  find_twins();
  weights_.assign(sections.count(), 1);
  stamps_.assign(problem.count(), 0);
}

void ExactSearch::find_members() {
  std::vector<std::uint32_t> counts(sections_.count() + 1, 0);
  const auto for_each = [&](const auto& visit) {
    for (std::uint32_t b = 0; b < problem_.count(); ++b) {
      for (const SectionRange& range : sections_.of(b)) {
        for (std::uint32_t s = range.first; s < range.last; ++s) visit(s, b);
      }
    }
  };
  for_each([&](std::uint32_t s, std::uint32_t) { ++counts[s + 1]; });
  std::partial_sum(counts.begin(), counts.end(), counts.begin());
  member_starts_ = counts;
  members_.resize(counts.back());
  for_each([&](std::uint32_t s, std::uint32_t b) { members_[counts[s]++] = b; });
}

// Who lives when a range begins, and who begins in it; by size, for pass_over().
void ExactSearch::find_neighbours() {
  std::vector<std::vector<std::uint32_t>> beginning(sections_.count());
  for (std::uint32_t b = 0; b < problem_.count(); ++b) {
    for (const SectionRange& range : sections_.of(b)) beginning[range.first].push_back(b);
    has_several_ranges_ |= sections_.of(b).size() > 1;
  }
  std::vector<std::uint32_t> seen(problem_.count(), kNone);
  neighbour_starts_.push_back(0);
  for (std::uint32_t b = 0; b < problem_.count(); ++b) {
    seen[b] = b;
    const auto add = [&](std::span<const std::uint32_t> others) {
      for (const std::uint32_t other : others) {
        if (std::exchange(seen[other], b) != b) neighbours_.push_back(other);
      }
    };
    for (const SectionRange& range : sections_.of(b)) {
      add(members(range.first));
      for (std::uint32_t s = range.first + 1; s < range.last; ++s) add(beginning[s]);
    }
    std::sort(neighbours_.begin() + neighbour_starts_.back(), neighbours_.end(),
              [&](std::uint32_t a, std::uint32_t c) {
                return std::pair(problem_.sizes[a], a) < std::pair(problem_.sizes[c], c);
              });
    neighbour_starts_.push_back(static_cast<std::uint32_t>(neighbours_.size()));
  }
}

void ExactSearch::find_twins() {
  twins_.assign(problem_.count(), kNone);
  for (std::uint32_t b = 0; b < problem_.count(); ++b) {
    if (problem_.fixed[b] != CompactProblem::kFree) continue;
    for (const std::uint32_t other : neighbours(b)) {
      const bool is_twin = other < b && problem_.sizes[other] == problem_.sizes[b] &&
                           problem_.alignments[other] == problem_.alignments[b] &&
                           problem_.fixed[other] == CompactProblem::kFree &&
                           std::ranges::equal(sections_.of(other), sections_.of(b));
      if (is_twin && (twins_[b] == kNone || twins_[b] < other)) twins_[b] = other;
    }
  }
}

// The preference's key, disturbed by the noise: the larger is tried first.
void ExactSearch::rank(const SearchOptions& options) {
  std::mt19937_64 random(options.seed);
  struct Entry {
    double key;
    double area;
    std::uint32_t buffer;
  };
  std::vector<Entry> entries;
  entries.reserve(problem_.count());
  for (std::uint32_t b = 0; b < problem_.count(); ++b) {
    double width = 0;
    for (const Span32& span : problem_.spans_of(b)) {
      width += static_cast<double>(span.death) - static_cast<double>(span.birth);
    }
    const auto size = static_cast<double>(problem_.sizes[b]);
    double key = width;
    if (options.preference == Preference::kArea) key = size * width;
    if (options.preference == Preference::kSize) key = size;
    if (options.preference == Preference::kSizeRootWidth) key = size * std::sqrt(width);
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
    entries.push_back({key * (1 + options.noise * (2 * uniform - 1)), size * width, b});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tuple(b.key, b.area, a.buffer) < std::tuple(a.key, a.area, b.buffer);
  });
  ranks_.assign(problem_.count(), 0);
  for (std::uint32_t k = 0; k < entries.size(); ++k) ranks_[entries[k].buffer] = k;
}

// The state in which nothing is placed. False if that is a dead end already.
bool ExactSearch::start(std::int64_t capacity) {
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

bool ExactSearch::fail(std::uint32_t section) {
  ++weights_[section];
  queue_.clear();
  return false;
}

bool ExactSearch::raise_floor(std::uint32_t section, std::int64_t floor) {
  if (floor <= floors_[section]) return true;
  trail_.push_back({Change::Kind::kFloor, section, floors_[section]});
  floors_[section] = floor;
  if (totals_[section] == 0) return true;
  if (floor + totals_[section] > capacity_) return fail(section);
  queue_.push_back(section);
  return true;
}

// The lowest of the section's unplaced members; the floor is raised to it.
bool ExactSearch::find_witness(std::uint32_t section) {
  std::uint32_t best = kNone;
  std::int64_t lowest = std::numeric_limits<std::int64_t>::max();
  for (const std::uint32_t b : members(section)) {
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

bool ExactSearch::raise_lowest(std::uint32_t buffer, std::int64_t offset) {
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

bool ExactSearch::propagate() {
  while (!queue_.empty()) {
    const std::uint32_t section = queue_.back();
    queue_.pop_back();
    const std::int64_t floor = floors_[section];
    for (const std::uint32_t b : members(section)) {
      if (offsets_[b] == kUnplaced && lowest_[b] < floor && !raise_lowest(b, floor)) return false;
    }
  }
  return true;
}

// Puts the buffer at its lowest beginning. False if that leads to a dead end.
bool ExactSearch::place(std::uint32_t buffer) {
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
  for (const std::uint32_t other : neighbours(buffer)) {
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
bool ExactSearch::fail_placed(std::uint32_t buffer, std::uint32_t section) {
  for (const SectionRange& range : sections_.of(buffer)) {
    for (std::uint32_t s = std::max(range.first, section + 1); s < range.last; ++s)
      totals_[s] -= problem_.sizes[buffer];
  }
  return fail(section);
}

// Nothing begins at the floor of a section: each of the buffers that could have comes to rest on a
// neighbour, which cannot be one that begins at that floor.
bool ExactSearch::pass_over(const std::vector<std::uint32_t>& passed) {
  constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
  std::vector<std::int64_t> rests(passed.size(), kNever);
  std::int64_t smallest = kNever;
  std::int64_t first_rest = kNever;
  const std::int64_t floor = lowest_[passed.front()];
  ++stamp_;
  for (const std::uint32_t b : passed) stamps_[b] = stamp_;
  for (std::size_t k = 0; k < passed.size(); ++k) {
    smallest = std::min(smallest, problem_.sizes[passed[k]]);
    for (const std::uint32_t other : neighbours(passed[k])) {
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

void ExactSearch::undo(std::size_t mark) {
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

ExactSearch::Key ExactSearch::key_of(const Part& part) const {
  Key key{0, 0};
  for (const std::uint32_t b : part.buffers) {
    const std::uint64_t x =
        mix(static_cast<std::uint64_t>(lowest_[b]) + 0x9e3779b97f4a7c15ULL * (b + 1));
    key.low += x;
    key.high += mix(x ^ 0xd6e8feb86659fd93ULL);
  }
  return key;
}

// Whether section `s` bounds a valley of this floor: nothing to be placed, or a higher floor.
bool ExactSearch::is_wall(const Part& part, std::uint32_t s, std::int64_t floor) const {
  return s < part.first || s >= part.last || totals_[s] == 0 || floors_[s] > floor;
}

double ExactSearch::urgency(std::uint32_t section, std::uint32_t weight) const {
  const auto slack = static_cast<double>(capacity_ - floors_[section] - totals_[section]);
  switch (valley_rule_) {
    case ValleyRule::kTightest:
      return -slack;
    case ValleyRule::kConflicts:
      return static_cast<double>(weight) / (slack + 0.001 * static_cast<double>(capacity_));
    case ValleyRule::kLowest:
      break;
  }
  return -static_cast<double>(floors_[section]);
}

// The tightest section of the most urgent valley: a stretch of one floor between higher ones.
// Buffers of several ranges may have lower floors elsewhere, so with them it is the lowest valley.
std::uint32_t ExactSearch::choose_section(const Part& part) const {
  std::uint32_t best = kNone;
  double best_urgency = 0;
  for (std::uint32_t s = part.first; s < part.last;) {
    if (totals_[s] == 0) {
      ++s;
      continue;
    }
    std::uint32_t tightest = s;
    std::uint32_t weight = 0;
    std::uint32_t end = s;
    for (; end < part.last && totals_[end] != 0 && floors_[end] == floors_[s]; ++end) {
      if (totals_[end] > totals_[tightest]) tightest = end;
      weight = std::max(weight, weights_[end]);
    }
    if (is_wall(part, s - 1, floors_[s]) && is_wall(part, end, floors_[s])) {
      const double urgent = urgency(tightest, weight);
      const bool is_better = has_several_ranges_ ? best == kNone || floors_[s] < floors_[best]
                                                 : best == kNone || urgent > best_urgency;
      if (is_better) {
        best = tightest;
        best_urgency = urgent;
      }
    }
    s = end;
  }
  return best;
}

// The members that may begin at the section's floor, the preferred ones first.
std::vector<std::uint32_t> ExactSearch::candidates(std::uint32_t section) const {
  std::vector<std::uint32_t> result;
  for (const std::uint32_t b : members(section)) {
    if (offsets_[b] == kUnplaced && lowest_[b] == floors_[section]) result.push_back(b);
  }
  std::sort(result.begin(), result.end(),
            [&](std::uint32_t a, std::uint32_t b) { return ranks_[a] < ranks_[b]; });
  return result;
}

// Cut where no unplaced buffer crosses; the part that has most often been the dead end comes first.
std::vector<ExactSearch::Part> ExactSearch::split(const Part& whole) const {
  std::vector<Part> parts;
  for (std::uint32_t s = whole.first, first = s; s < whole.last; ++s) {
    if (s + 1 < whole.last && crossings_[s] > 0) continue;
    parts.push_back({first, s + 1, {}});
    first = s + 1;
  }
  for (const std::uint32_t b : whole.buffers) {
    if (offsets_[b] != kUnplaced) continue;
    const std::uint32_t s = sections_.of(b).front().first;
    const auto part = std::partition_point(parts.begin(), parts.end(),
                                           [&](const Part& p) { return p.last <= s; });
    part->buffers.push_back(b);
  }
  std::erase_if(parts, [](const Part& part) { return part.buffers.empty(); });
  if (parts.size() < 2) return parts;
  const auto weight = [&](const Part& part) {
    return *std::max_element(weights_.begin() + part.first, weights_.begin() + part.last);
  };
  std::stable_sort(parts.begin(), parts.end(),
                   [&](const Part& a, const Part& b) { return weight(a) > weight(b); });
  return parts;
}

SearchOutcome ExactSearch::solve_parts(const Part& whole, std::uint32_t depth) {
  for (const Part& part : split(whole)) {
    const SearchOutcome outcome = solve(part, depth + 1);
    if (outcome != SearchOutcome::kFound) return outcome;
  }
  return SearchOutcome::kFound;
}

SearchOutcome ExactSearch::solve(const Part& part, std::uint32_t depth) {
  ++visited_;
  if (--left_ <= 0 || depth > kDeepest) return SearchOutcome::kSpent;
  if (visited_ % kAskEvery == 0 && should_stop_ && should_stop_()) {
    left_ = 0;
    return SearchOutcome::kSpent;
  }
  const Key key = key_of(part);
  const auto known = failures_.find(key);
  if (known != failures_.end() && known->second >= capacity_) return SearchOutcome::kImpossible;
  const std::uint32_t section = choose_section(part);
  const std::vector<std::uint32_t> options = candidates(section);
  const std::size_t mark = trail_.size();
  for (const std::uint32_t b : options) {
    const std::uint32_t twin = twins_[b];
    if (twin != kNone && offsets_[twin] == kUnplaced && lowest_[twin] == lowest_[b]) continue;
    if (place(b)) {
      const SearchOutcome outcome = solve_parts(part, depth);
      if (outcome != SearchOutcome::kImpossible) return outcome;
    }
    undo(mark);
  }
  if (pass_over(options)) {
    const SearchOutcome outcome = solve(part, depth + 1);
    if (outcome != SearchOutcome::kImpossible) return outcome;
  }
  undo(mark);
  if (failures_.size() < kMostFailures) {
    std::int64_t& highest = failures_[key];
    highest = std::max(highest, capacity_);
  }
  return SearchOutcome::kImpossible;
}

SearchOutcome ExactSearch::run(std::int64_t capacity, const SearchOptions& options) {
  left_ = options.nodes;
  should_stop_ = options.should_stop;
  valley_rule_ = options.valley_rule;
  rank(options);
  if (!start(capacity)) return SearchOutcome::kImpossible;
  Part whole{0, sections_.count(), {}};
  for (std::uint32_t b = 0; b < problem_.count(); ++b) {
    if (offsets_[b] == kUnplaced) whole.buffers.push_back(b);
  }
  return solve_parts(whole, 0);
}

}  // namespace ebbtide
