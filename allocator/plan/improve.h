// Making a plan lower by changing the order in which its buffers are placed.
//
// Note [Squeeze]: sort the buffers of any valid plan by offset and place them again by first fit:
// none ends up higher than it was, because everything that conflicts with it and lies below it has
// been placed no higher than before. The same holds for the plan turned upside down (what touched
// the top now touches the bottom), so turning and placing again never loses and often closes gaps.
// For the same reason first fit in order of offset gives a plan made by first fit unchanged.
// Two limits: with mixed alignments, and where fixed or pinned buffers cannot turn over with the
// rest, the turned plan may come out higher; such a result is dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/pass.h"

namespace ebbtide {

// A plan in the making. Invariant: first fit of `order` gives `offsets` and `height`.
struct Candidate {
  std::int64_t height = Pass::kNoLimit;
  std::vector<std::int64_t> offsets;
  std::vector<std::uint32_t> order;  // begins with the pinned buffers
};

// How much work is left: each pass costs in proportion to its expected time.
class Effort {
 public:
  Effort(std::int64_t steps, const std::function<bool()>& should_stop)
      : total_(steps), left_(steps), should_stop_(should_stop) {}

  void spend(std::int64_t steps) { left_ -= steps; }
  bool is_spent(double fraction = 1.0) const {
    return used() >= fraction || (should_stop_ && should_stop_());
  }
  double used() const {
    return total_ <= 0 ? 1.0 : 1.0 - static_cast<double>(left_) / static_cast<double>(total_);
  }

 private:
  std::int64_t total_;
  std::int64_t left_;
  const std::function<bool()>& should_stop_;
};

// Owned by one solve; not thread-safe; deterministic by seed. The problem must outlive it.
class Improver {
 public:
  // `pinned` buffers stay the first of every order, as given. Nothing below `target` is sought.
  Improver(const CompactProblem& problem, std::span<const std::uint32_t> pinned,
           std::int64_t target, std::uint64_t seed, Effort& effort);

  // The candidate that the order leads to; its height is kNoLimit if that reaches the limit.
  Candidate evaluate(std::span<const std::uint32_t> order, FitRule rule,
                     std::int64_t limit = Pass::kNoLimit);

  // See Note [Squeeze]: up to `turns` turns, fewer when two in a row gain nothing.
  void squeeze(Candidate& candidate, int turns);

  // Squeaky wheel: what ends above the target is placed in half as many steps the next time, up to
  // `rounds` times (Joslin, Clements 1999, "Squeaky wheel optimization"). Never worse.
  Candidate promote(Candidate start, int rounds);

  // The candidate for the offsets of a valid plan. `is_packed`: first fit in order of offset is
  // known to give them again, so it need not be run.
  Candidate adopt(std::vector<std::int64_t> offsets, bool is_packed);

  // Threshold accepting from `start` until the target is reached or the effort is spent; returns
  // the best candidate seen, never a worse one than `start`.
  Candidate search(Candidate start);

 private:
  double uniform();  // in [0, 1)
  std::size_t below(std::size_t bound);
  std::int64_t end_of(const Candidate& candidate, std::uint32_t buffer) const;
  std::vector<std::uint32_t> by_height(const Candidate& candidate, bool turned) const;
  void normalise(Candidate& candidate);
  std::size_t lift_block(const Candidate& current, std::vector<std::uint32_t>& order);
  std::size_t lift_one(const Candidate& current, std::vector<std::uint32_t>& order);
  Candidate neighbour(const Candidate& current, std::int64_t limit);

  const CompactProblem& problem_;
  std::vector<std::uint32_t> pinned_;
  std::vector<std::uint32_t> others_;
  std::int64_t target_;
  std::mt19937_64 random_;
  Effort& effort_;
  std::int64_t pass_cost_;
  Pass pass_;
};

}  // namespace ebbtide
