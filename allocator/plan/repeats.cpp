#include "allocator/plan/repeats.h"

#include <algorithm>
#include <bit>

namespace ebbtide {
namespace {

constexpr std::size_t kGram = 4;         // so many tokens in a row must come again
constexpr std::size_t kMostPeriods = 8;  // that are tried

// The distances at which grams come again, the most frequent first.
std::vector<std::size_t> likely_periods(std::span<const std::uint64_t> tokens) {
  const std::size_t grams = tokens.size() - kGram + 1;
  std::vector<std::uint64_t> hashes(grams);
  for (std::size_t i = 0; i < grams; ++i) {
    for (std::size_t k = 0; k < kGram; ++k) {
      hashes[i] = (hashes[i] ^ tokens[i + k]) * 0x9e3779b97f4a7c15ULL;
      hashes[i] ^= hashes[i] >> 29;
    }
  }
  // Of each slot, the last gram that fell into it, plus one.
  std::vector<std::uint32_t> last(std::bit_ceil(2 * grams), 0);
  std::vector<std::uint32_t> counts(grams, 0);  // of each distance
  for (std::size_t i = 0; i < grams; ++i) {
    std::uint32_t& slot = last[hashes[i] & (last.size() - 1)];
    if (slot > 0 && hashes[slot - 1] == hashes[i]) ++counts[i - (slot - 1)];
    slot = static_cast<std::uint32_t>(i + 1);
  }
  std::vector<std::size_t> periods;
  for (std::size_t p = 1; p < grams; ++p) {
    if (counts[p] >= p) periods.push_back(p);
  }
  const std::size_t tried = std::min(kMostPeriods, periods.size());
  std::partial_sort(periods.begin(), periods.begin() + static_cast<std::ptrdiff_t>(tried),
                    periods.end(), [&](std::size_t a, std::size_t b) {
                      return counts[a] != counts[b] ? counts[a] > counts[b] : a < b;
                    });
  periods.resize(tried);
  return periods;
}

}  // namespace

std::vector<Repeat> find_repeats(std::span<const std::uint64_t> tokens) {
  std::vector<Repeat> repeats;
  if (tokens.size() < 2 * kGram) return repeats;
  std::vector<bool> is_taken(tokens.size(), false);
  for (const std::size_t period : likely_periods(tokens)) {
    const std::size_t end = tokens.size() - period;
    for (std::size_t i = 0; i < end; ++i) {
      const std::size_t first = i;
      while (i < end && tokens[i] == tokens[i + period] && !is_taken[i] && !is_taken[i + period]) {
        ++i;
      }
      if (i - first < period) continue;
      const Repeat repeat{first, period, i - first + period};
      std::fill_n(is_taken.begin() + static_cast<std::ptrdiff_t>(first), repeat.length, true);
      repeats.push_back(repeat);
    }
  }
  std::sort(repeats.begin(), repeats.end(),
            [](const Repeat& a, const Repeat& b) { return a.first < b.first; });
  return repeats;
}

}  // namespace ebbtide
