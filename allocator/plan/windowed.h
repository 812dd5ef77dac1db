// Plans for buffers with windows (problem.h): where one of them has only its lower bytes in use,
// another one may lie in the upper ones.
//
// Note [Barriers]: two buffers conflict where the bytes that both have in use at a tick would meet.
// Seen from one of them, each such tick forbids an open interval of differences of offsets; for two
// whole buffers that is (-its size, the other's size). A buffer goes to the lowest offset that no
// buffer before it forbids: first fit. Other than with whole buffers a plan cannot simply be pushed
// down, so what is found is kept only where it is lower, and nothing but the bound is a proof.
#pragma once

#include <chrono>
#include <cstdint>
#include <random>
#include <vector>

#include "allocator/plan/anytime.h"
#include "allocator/plan/instance.h"

namespace ebbtide {

// Used once, by one thread. Begins with the plan of solve(), for which all buffers are whole, and
// ends with that one where there are too many conflicts to list.
class WindowedSearch {
 public:
  // Requires: check(problem); one arena. Both must outlive it.
  WindowedSearch(const Problem& problem, const AnytimeOptions& options);

  Solution run();
  Bytes lower_bound() const { return {instance_.bound}; }
  double seconds() const;

 private:
  // The offset of a buffer minus that of the other is not in (low, high).
  struct Barrier {
    std::uint32_t other;
    std::int64_t low;
    std::int64_t high;
  };
  using Order = std::vector<std::uint32_t>;

  bool find_barriers();
  bool is_over() const;
  bool must_stop() const;
  // First fit. The height, or any that is not below the limit.
  std::int64_t fit(const Order& order, std::int64_t limit);
  std::int64_t lowest_place(std::uint32_t buffer);
  void take(std::int64_t height, const Order& order);
  void try_orders();
  void squeeze(Order order, std::int64_t height);
  void search();
  Order neighbour(const Order& order, std::int64_t height);

  const Problem& problem_;
  const AnytimeOptions& options_;
  std::chrono::steady_clock::time_point begin_;
  Instance instance_;
  std::vector<std::vector<Barrier>> barriers_;  // of each buffer
  std::mt19937_64 random_;
  Solution best_;
  std::vector<std::int64_t> offsets_;  // of the last fit(); kNotPlaced in its midst
  std::vector<std::pair<std::int64_t, std::int64_t>>
      forbidden_;  // lowest_place()'s, kept for its memory
};

}  // namespace ebbtide
