// Where does a sequence repeat itself? Stretches of one period, without being told the period.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ebbtide {

// tokens[first + i] == tokens[first + i + period] for all i < length - period.
// Invariant: length >= 2 * period.
struct Repeat {
  std::size_t first;
  std::size_t period;
  std::size_t length;
};

// Stretches that have no token in common, in order. Those of the period that explains most of the
// sequence come first, then those of the next in what is left, for some periods: a heuristic, which
// may overlook repeats, but what it says is true. O(n).
std::vector<Repeat> find_repeats(std::span<const std::uint64_t> tokens);

}  // namespace ebbtide
