#include "allocator/plan/improve.h"

#include <algorithm>
#include <utility>

namespace ebbtide {
namespace {

// The largest step up that the search accepts at its beginning, relative to the height.
constexpr double kMaxThreshold = 0.02;
// The same relative to the distance from the target: near it, small steps find more.
constexpr double kThresholdOfGap = 0.5;
constexpr double kBlockMoves = 0.4;    // share of moves that lift everything above a level
constexpr double kSqueezeAfter = 0.3;  // share of accepted moves that are squeezed
constexpr int kTurnsInSearch = 4;
constexpr int kPatience = 200;  // rounds without a gain before the best is taken up again

// A pass of n buffers takes n * (1 + n / 1000) * 0.11 us on a 2020s server core, near enough.
std::int64_t cost_of_pass(std::int64_t n) { return n + n * n / 1000; }

}  // namespace

Improver::Improver(const CompactProblem& problem, std::span<const std::uint32_t> pinned,
                   std::int64_t target, std::uint64_t seed, Effort& effort)
    : problem_(problem),
      pinned_(pinned.begin(), pinned.end()),
      target_(target),
      random_(seed),
      effort_(effort),
      pass_cost_(cost_of_pass(problem.count())),
      pass_(problem) {
  std::vector<bool> is_pinned(problem.count(), false);
  for (const std::uint32_t i : pinned) is_pinned[i] = true;
  for (std::uint32_t i = 0; i < problem.count(); ++i) {
    if (!is_pinned[i]) others_.push_back(i);
  }
}

double Improver::uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

std::size_t Improver::below(std::size_t bound) {
  return static_cast<std::size_t>(uniform() * static_cast<double>(bound));
}

std::int64_t Improver::end_of(const Candidate& candidate, std::uint32_t buffer) const {
  return candidate.offsets[buffer] + problem_.sizes[buffer];
}

// The pinned buffers as given, then the others from the bottom up, or from the top down.
std::vector<std::uint32_t> Improver::by_height(const Candidate& candidate, bool turned) const {
  std::vector<std::pair<std::int64_t, std::uint32_t>> keys;
  keys.reserve(others_.size());
  for (const std::uint32_t i : others_) {
    keys.emplace_back(turned ? -end_of(candidate, i) : candidate.offsets[i], i);
  }
  std::sort(keys.begin(), keys.end());
  std::vector<std::uint32_t> order = pinned_;
  order.reserve(problem_.count());
  for (const auto& [key, i] : keys) order.push_back(i);
  return order;
}

// Makes the candidate's invariant true for offsets that any valid plan may have.
void Improver::normalise(Candidate& candidate) {
  candidate.order = by_height(candidate, false);
  candidate.height = pass_.run(candidate.order, FitRule::kFirst);
  candidate.offsets = pass_.offsets();
  effort_.spend(pass_cost_);
}

Candidate Improver::evaluate(std::span<const std::uint32_t> order, FitRule rule,
                             std::int64_t limit) {
  Candidate candidate;
  candidate.order = pinned_;
  std::vector<bool> is_pinned(problem_.count(), false);
  for (const std::uint32_t i : pinned_) is_pinned[i] = true;
  for (const std::uint32_t i : order) {
    if (!is_pinned[i]) candidate.order.push_back(i);
  }
  candidate.height = pass_.run(candidate.order, rule, limit);
  if (candidate.height == Pass::kNoLimit) return candidate;
  candidate.offsets = pass_.offsets();
  if (rule != FitRule::kFirst) normalise(candidate);
  return candidate;
}

void Improver::squeeze(Candidate& candidate, int turns) {
  int idle = 0;
  Candidate turned = candidate;
  for (int i = 0; i < turns && idle < 2; ++i) {
    if (candidate.height <= target_ || effort_.is_spent()) break;
    turned.order = by_height(turned, true);
    turned.height = pass_.run(turned.order, FitRule::kFirst, candidate.height + 1);
    effort_.spend(pass_cost_);
    if (turned.height == Pass::kNoLimit) break;
    turned.offsets = pass_.offsets();
    idle = turned.height < candidate.height ? 0 : idle + 1;
    candidate = turned;
  }
}

Candidate Improver::adopt(std::vector<std::int64_t> offsets, bool is_packed) {
  Candidate candidate;
  candidate.offsets = std::move(offsets);
  if (!is_packed) {
    normalise(candidate);
    return candidate;
  }
  candidate.order = by_height(candidate, false);
  candidate.height = 0;
  for (const std::uint32_t i : candidate.order) {
    candidate.height = std::max(candidate.height, end_of(candidate, i));
  }
  return candidate;
}

Candidate Improver::promote(Candidate start, int rounds) {
  Candidate best = start;
  Candidate current = std::move(start);
  for (int round = 0; round < rounds && best.height > target_ && !effort_.is_spent(); ++round) {
    // By place in the order; what ends too high as if its place were half of that, before equals.
    std::vector<std::pair<std::size_t, std::size_t>> keys;
    keys.reserve(others_.size());
    for (std::size_t k = pinned_.size(); k < current.order.size(); ++k) {
      const bool is_high = end_of(current, current.order[k]) > target_;
      keys.emplace_back(is_high ? k : 2 * k + 1, k);
    }
    std::sort(keys.begin(), keys.end());
    std::vector<std::uint32_t> order = pinned_;
    order.reserve(current.order.size());
    for (const auto& [key, k] : keys) order.push_back(current.order[k]);
    current.order = std::move(order);
    current.height = pass_.run(current.order, FitRule::kFirst);
    current.offsets = pass_.offsets();
    effort_.spend(pass_cost_);
    if (current.height < best.height) best = current;
  }
  return best;
}

// Moves all that ends above a random level between the target and the top to an earlier place
// together, in their order. Returns how many of the first entries of the order are unchanged.
std::size_t Improver::lift_block(const Candidate& current, std::vector<std::uint32_t>& order) {
  const double gap = static_cast<double>(current.height - target_);
  const std::int64_t level = current.height - 1 - static_cast<std::int64_t>(gap * uniform());
  const auto begin = order.begin() + static_cast<std::ptrdiff_t>(pinned_.size());
  const auto is_high = [&](std::uint32_t i) { return end_of(current, i) > level; };
  const auto first = std::find_if(begin, order.end(), is_high);
  const auto to =
      begin + static_cast<std::ptrdiff_t>(below(static_cast<std::size_t>(first - begin) + 1));
  std::stable_partition(to, order.end(), is_high);
  return static_cast<std::size_t>(to - order.begin());
}

// Moves one buffer, mostly one that touches the top, to a random earlier place.
std::size_t Improver::lift_one(const Candidate& current, std::vector<std::uint32_t>& order) {
  const std::size_t pinned = pinned_.size();
  std::size_t from = pinned + below(order.size() - pinned);
  if (uniform() < 0.7) {
    std::size_t seen = 0;
    for (std::size_t k = pinned; k < order.size(); ++k) {
      // Keeps each of the buffers at the top with the same chance.
      if (end_of(current, order[k]) == current.height && below(++seen) == 0) from = k;
    }
  }
  const std::size_t to = pinned + below(from - pinned + 1);
  const auto at = [&](std::size_t k) { return order.begin() + static_cast<std::ptrdiff_t>(k); };
  std::rotate(at(to), at(from), at(from + 1));
  return to;
}

Candidate Improver::neighbour(const Candidate& current, std::int64_t limit) {
  Candidate next;
  next.order = current.order;
  const std::size_t kept =
      uniform() < kBlockMoves ? lift_block(current, next.order) : lift_one(current, next.order);
  next.height = pass_.run_after(next.order, kept, current.offsets, limit);
  effort_.spend(pass_cost_);
  if (next.height == Pass::kNoLimit) return next;
  next.offsets = pass_.offsets();
  if (uniform() < kSqueezeAfter) squeeze(next, kTurnsInSearch);
  return next;
}

Candidate Improver::search(Candidate start) {
  if (others_.empty()) return start;
  Candidate best = start;
  Candidate current = std::move(start);
  const double begun = effort_.used();
  int idle = 0;
  while (best.height > target_ && !effort_.is_spent()) {
    const double cooling = (1.0 - effort_.used()) / (1.0 - begun);
    const auto top = static_cast<double>(current.height);
    const double threshold =
        std::min(kMaxThreshold * top, kThresholdOfGap * static_cast<double>(best.height - target_));
    const auto step = static_cast<std::int64_t>(threshold * cooling);
    Candidate next = neighbour(current, current.height + step + 1);
    if (++idle > kPatience) {
      idle = 0;
      current = best;
    } else if (next.height != Pass::kNoLimit) {
      current = std::move(next);
    } else {
      continue;
    }
    if (current.height < best.height) {
      idle = 0;
      best = current;
    }
    current.order = by_height(current, false);
  }
  return best;
}

}  // namespace ebbtide
