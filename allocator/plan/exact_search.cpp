#include "allocator/plan/exact_search.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <tuple>
#include <utility>

namespace ebbtide {
namespace {

// Each level of the recursion takes half a kilobyte of stack.
constexpr std::uint32_t kDeepest = 4000;
constexpr std::size_t kMostFailures = 1'000'000;
constexpr std::int64_t kAskEvery = 64;

// splitmix64's finaliser.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

ExactSearch::ExactSearch(const CompactProblem& problem, const Sections& sections)
    : problem_(problem), sections_(sections), state_(problem, sections) {}

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

ExactSearch::Key ExactSearch::key_of(const Part& part) const {
  Key key{0, 0};
  for (const std::uint32_t b : part.buffers) {
    const std::uint64_t x =
        mix(static_cast<std::uint64_t>(state_.lowest(b)) + 0x9e3779b97f4a7c15ULL * (b + 1));
    key.low += x;
    key.high += mix(x ^ 0xd6e8feb86659fd93ULL);
  }
  return key;
}

// Whether section `s` bounds a valley of this floor: nothing to be placed, or a higher floor.
bool ExactSearch::is_wall(const Part& part, std::uint32_t s, std::int64_t floor) const {
  return s < part.first || s >= part.last || state_.total(s) == 0 || state_.floor(s) > floor;
}

double ExactSearch::urgency(std::uint32_t section, std::uint32_t weight) const {
  const auto slack =
      static_cast<double>(state_.capacity() - state_.floor(section) - state_.total(section));
  switch (valley_rule_) {
    case ValleyRule::kTightest:
      return -slack;
    case ValleyRule::kConflicts:
      return static_cast<double>(weight) / (slack + 0.001 * static_cast<double>(state_.capacity()));
    case ValleyRule::kLowest:
      break;
  }
  return -static_cast<double>(state_.floor(section));
}

// The tightest section of the most urgent valley: a stretch of one floor between higher ones.
// Buffers of several ranges may have lower floors elsewhere, so with them it is the lowest valley.
std::uint32_t ExactSearch::choose_section(const Part& part) const {
  std::uint32_t best = kNone;
  double best_urgency = 0;
  for (std::uint32_t s = part.first; s < part.last;) {
    if (state_.total(s) == 0) {
      ++s;
      continue;
    }
    std::uint32_t tightest = s;
    std::uint32_t weight = 0;
    std::uint32_t end = s;
    for (; end < part.last && state_.total(end) != 0 && state_.floor(end) == state_.floor(s);
         ++end) {
      if (state_.total(end) > state_.total(tightest)) tightest = end;
      weight = std::max(weight, state_.weight(end));
    }
    if (is_wall(part, s - 1, state_.floor(s)) && is_wall(part, end, state_.floor(s))) {
      const double urgent = urgency(tightest, weight);
      const bool is_better = state_.graph().has_several_ranges()
                                 ? best == kNone || state_.floor(s) < state_.floor(best)
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
  for (const std::uint32_t b : state_.graph().members(section)) {
    if (!state_.is_placed(b) && state_.lowest(b) == state_.floor(section)) result.push_back(b);
  }
  std::sort(result.begin(), result.end(),
            [&](std::uint32_t a, std::uint32_t b) { return ranks_[a] < ranks_[b]; });
  return result;
}

// Cut where no unplaced buffer crosses; the part that has most often been the dead end comes first.
std::vector<ExactSearch::Part> ExactSearch::split(const Part& whole) const {
  std::vector<Part> parts;
  for (std::uint32_t s = whole.first, first = s; s < whole.last; ++s) {
    if (s + 1 < whole.last && state_.is_crossed(s)) continue;
    parts.push_back({first, s + 1, {}});
    first = s + 1;
  }
  for (const std::uint32_t b : whole.buffers) {
    if (state_.is_placed(b)) continue;
    const std::uint32_t s = sections_.of(b).front().first;
    const auto part = std::partition_point(parts.begin(), parts.end(),
                                           [&](const Part& p) { return p.last <= s; });
    part->buffers.push_back(b);
  }
  std::erase_if(parts, [](const Part& part) { return part.buffers.empty(); });
  if (parts.size() < 2) return parts;
  const auto weight = [&](const Part& part) {
    std::uint32_t most = 0;
    for (std::uint32_t s = part.first; s < part.last; ++s) most = std::max(most, state_.weight(s));
    return most;
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
  if (known != failures_.end() && known->second >= state_.capacity())
    return SearchOutcome::kImpossible;
  const std::uint32_t section = choose_section(part);
  const std::vector<std::uint32_t> options = candidates(section);
  const std::size_t mark = state_.mark();
  for (const std::uint32_t b : options) {
    const std::uint32_t twin = state_.graph().twin(b);
    if (twin != kNone && !state_.is_placed(twin) && state_.lowest(twin) == state_.lowest(b))
      continue;
    if (state_.place(b)) {
      const SearchOutcome outcome = solve_parts(part, depth);
      if (outcome != SearchOutcome::kImpossible) return outcome;
    }
    state_.undo(mark);
  }
  if (state_.pass_over(options)) {
    const SearchOutcome outcome = solve(part, depth + 1);
    if (outcome != SearchOutcome::kImpossible) return outcome;
  }
  state_.undo(mark);
  if (failures_.size() < kMostFailures) {
    std::int64_t& highest = failures_[key];
    highest = std::max(highest, state_.capacity());
  }
  return SearchOutcome::kImpossible;
}

SearchOutcome ExactSearch::run(std::int64_t capacity, const SearchOptions& options) {
  left_ = options.nodes;
  should_stop_ = options.should_stop;
  valley_rule_ = options.valley_rule;
  rank(options);
  if (!state_.start(capacity)) return SearchOutcome::kImpossible;
  Part whole{0, sections_.count(), {}};
  for (std::uint32_t b = 0; b < problem_.count(); ++b) {
    if (!state_.is_placed(b)) whole.buffers.push_back(b);
  }
  return solve_parts(whole, 0);
}

}  // namespace ebbtide
