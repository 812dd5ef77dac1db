#include "allocator/plan/exact_search.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>

namespace ebbtide {
namespace {

constexpr std::uint32_t kDeepest = 20'000;
constexpr std::size_t kMostFailures = 4'000'000;
constexpr std::int64_t kAskEvery = 256;

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

ExactSearch::ExactSearch(const CompactProblem& problem, const Sections& sections,
                         std::function<bool()> should_stop)
    : problem_(problem), sections_(sections), should_stop_(std::move(should_stop)) {
  const std::uint32_t n = problem.count();
  std::vector<std::vector<std::uint32_t>> members(sections.count());
  for (std::uint32_t b = 0; b < n; ++b) {
    for (const SectionRange& range : sections.of(b)) {
      for (std::uint32_t s = range.first; s < range.last; ++s) members[s].push_back(b);
    }
  }
  member_starts_.push_back(0);
  for (const auto& list : members) {
    members_.insert(members_.end(), list.begin(), list.end());
    member_starts_.push_back(static_cast<std::uint32_t>(members_.size()));
  }
  std::vector<std::uint32_t> seen(n, kNone);
  neighbour_starts_.push_back(0);
  for (std::uint32_t b = 0; b < n; ++b) {
    seen[b] = b;
    for (const SectionRange& range : sections.of(b)) {
      for (std::uint32_t s = range.first; s < range.last; ++s) {
        for (const std::uint32_t other : members[s]) {
          if (std::exchange(seen[other], b) != b) neighbours_.push_back(other);
        }
      }
    }
    neighbour_starts_.push_back(static_cast<std::uint32_t>(neighbours_.size()));
  }
  twins_.assign(n, kNone);
  for (std::uint32_t b = 0; b < n; ++b) {
    if (problem.fixed[b] != CompactProblem::kFree) continue;
    for (const std::uint32_t other : neighbours(b)) {
      const bool is_twin = other < b && problem.sizes[other] == problem.sizes[b] &&
                           problem.alignments[other] == problem.alignments[b] &&
                           problem.fixed[other] == CompactProblem::kFree &&
                           std::ranges::equal(sections.of(other), sections.of(b));
      if (is_twin && (twins_[b] == kNone || twins_[b] < other)) twins_[b] = other;
    }
  }
  weights_.assign(sections.count(), 1);
}

void ExactSearch::rank(Preference preference, std::uint64_t seed) {
  const std::uint32_t n = problem_.count();
  std::mt19937_64 random(seed);
  std::vector<std::tuple<double, double, double, std::uint32_t>> keys;
  keys.reserve(n);
  for (std::uint32_t b = 0; b < n; ++b) {
    std::int64_t crowd = 0;
    double width = 0;
    for (const Span32& span : problem_.spans_of(b)) width += span.death - static_cast<double>(span.birth);
    for (const SectionRange& range : sections_.of(b)) {
      for (std::uint32_t s = range.first; s < range.last; ++s) crowd = std::max(crowd, sections_.load(s));
    }
    const double size = static_cast<double>(problem_.sizes[b]);
    const double area = size * width;
    const double noise = 0.5 + static_cast<double>(random() >> 11) * 0x1p-53;
    const double c = static_cast<double>(crowd);
    switch (preference) {
      case Preference::kCrowdWidthArea: keys.emplace_back(-c, -width, -area, b); break;
      case Preference::kCrowdAreaWidth: keys.emplace_back(-c, -area, -width, b); break;
      case Preference::kWidthAreaCrowd: keys.emplace_back(-width, -area, -c, b); break;
      case Preference::kSize: keys.emplace_back(-size, -width, 0, b); break;
      case Preference::kRandom: keys.emplace_back(-width * noise, -area, -c, b); break;
    }
  }
  std::sort(keys.begin(), keys.end());
  ranks_.assign(n, 0);
  for (std::uint32_t k = 0; k < n; ++k) ranks_[std::get<3>(keys[k])] = k;
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
    for (std::uint32_t s = range.first; s < range.last; ++s) totals_[s] -= size;
  }
  for (const SectionRange& range : ranges) {
    for (std::uint32_t s = range.first; s < range.last; ++s) {
      if (!raise_floor(s, end)) return false;
      if (witnesses_[s] == buffer && !find_witness(s)) return false;
    }
  }
  return propagate();
}

// Nothing begins at the floor of a section: each of the buffers that could have comes to rest on a
// neighbour, which cannot be one that begins at that floor.
bool ExactSearch::pass_over(const std::vector<std::uint32_t>& passed) {
  constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
  std::vector<std::int64_t> rests(passed.size(), kNever);
  std::int64_t smallest = kNever;
  std::int64_t first_rest = kNever;
  for (std::size_t k = 0; k < passed.size(); ++k) {
    smallest = std::min(smallest, problem_.sizes[passed[k]]);
    for (const std::uint32_t other : neighbours(passed[k])) {
      if (offsets_[other] != kUnplaced) continue;
      const bool is_passed = std::find(passed.begin(), passed.end(), other) != passed.end();
      if (!is_passed) rests[k] = std::min(rests[k], lowest_[other] + problem_.sizes[other]);
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
      case Change::Kind::kFloor: floors_[change.index] = change.before; break;
      case Change::Kind::kLowest: lowest_[change.index] = change.before; break;
      case Change::Kind::kWitness: witnesses_[change.index] = static_cast<std::uint32_t>(change.before); break;
      case Change::Kind::kPlaced: {
        const std::uint32_t b = change.index;
        const auto ranges = sections_.of(b);
        offsets_[b] = kUnplaced;
        for (std::uint32_t s = ranges.front().first; s + 1 < ranges.back().last; ++s) ++crossings_[s];
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

std::uint32_t ExactSearch::choose_section(const Part& part) const {
  std::uint32_t best = kNone;
  for (std::uint32_t s = part.first; s < part.last; ++s) {
    if (totals_[s] == 0) continue;
    if (best == kNone) { best = s; continue; }
    if (floors_[s] != floors_[best]) {
      if (floors_[s] < floors_[best]) best = s;
      continue;
    }
    if (floors_[s] + totals_[s] > floors_[best] + totals_[best]) best = s;
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

SearchOutcome ExactSearch::solve_parts(const Part& whole, std::uint32_t depth) {
  std::vector<Part> parts;
  for (std::uint32_t s = whole.first, first = s; s < whole.last; ++s) {
    if (s + 1 < whole.last && crossings_[s] > 0) continue;
    parts.push_back({first, s + 1, {}});
    first = s + 1;
  }
  for (const std::uint32_t b : whole.buffers) {
    if (offsets_[b] != kUnplaced) continue;
    const std::uint32_t s = sections_.of(b).front().first;
    const auto part = std::partition_point(parts.begin(), parts.end(), [&](const Part& p) { return p.last <= s; });
    part->buffers.push_back(b);
  }
  std::erase_if(parts, [](const Part& part) { return part.buffers.empty(); });
  if (parts.size() > 1) {
    std::vector<std::pair<std::uint64_t, std::size_t>> order;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::uint64_t weight = 0;
      for (std::uint32_t s = parts[i].first; s < parts[i].last; ++s) weight = std::max<std::uint64_t>(weight, weights_[s]);
      order.emplace_back(~weight, i);
    }
    std::sort(order.begin(), order.end());
    for (const auto& [key, i] : order) {
      const SearchOutcome outcome = solve(parts[i], depth + 1);
      if (outcome != SearchOutcome::kFound) return outcome;
    }
    return SearchOutcome::kFound;
  }
  return parts.empty() ? SearchOutcome::kFound : solve(parts.front(), depth + 1);
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
    if (twins_[b] != kNone && offsets_[twins_[b]] == kUnplaced) continue;
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

SearchOutcome ExactSearch::run(std::int64_t capacity, std::int64_t nodes, Preference preference,
                               std::uint64_t seed) {
  left_ = nodes;
  rank(preference, seed);
  if (!start(capacity)) return SearchOutcome::kImpossible;
  Part whole{0, sections_.count(), {}};
  for (std::uint32_t b = 0; b < problem_.count(); ++b) {
    if (offsets_[b] == kUnplaced) whole.buffers.push_back(b);
  }
  return solve_parts(whole, 0);
}

}  // namespace ebbtide
