// Slow and obvious versions of what the planner does fast, and small problems to try both on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "allocator/plan/problem.h"
#include "allocator/plan/solution.h"

namespace ebbtide::reference {

inline Buffer buffer(std::int64_t size, std::int64_t birth, std::int64_t death,
                     std::int64_t alignment = 1) {
  return {Bytes{size}, {Interval{Tick{birth}, Tick{death}}}, Bytes{alignment}, std::nullopt};
}

inline Buffer fixed_buffer(std::int64_t size, std::int64_t birth, std::int64_t death,
                           std::int64_t offset) {
  Buffer result = buffer(size, birth, death);
  result.fixed = Offset{offset};
  return result;
}

// Tick by tick comparison of two lifetimes, sharing no code with overlaps().
inline bool live_together(const Buffer& a, const Buffer& b) {
  for (const Interval& i : a.live) {
    for (const Interval& j : b.live) {
      if (std::max(i.birth, j.birth) < std::min(i.death, j.death)) return true;
    }
  }
  return false;
}

// The bytes [first, second) of a buffer that are in use at a tick, or none.
inline std::pair<std::int64_t, std::int64_t> in_use(const Buffer& buffer, std::int64_t tick) {
  for (const Window& window : buffer.windows) {
    if (window.when.birth.value <= tick && tick < window.when.death.value) {
      return {window.low.value, window.high.value};
    }
  }
  for (const Interval& interval : buffer.live) {
    if (interval.birth.value <= tick && tick < interval.death.value) return {0, buffer.size.value};
  }
  return {0, 0};
}

// Whether no two buffers of one arena have a byte in use at the same tick of [0, ticks).
inline bool are_apart(const Problem& problem, std::span<const Offset> offsets, std::int64_t ticks) {
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (problem.buffers[i].arena != problem.buffers[j].arena) continue;
      for (std::int64_t tick = 0; tick < ticks; ++tick) {
        const auto [low, high] = in_use(problem.buffers[i], tick);
        const auto [other_low, other_high] = in_use(problem.buffers[j], tick);
        if (low == high || other_low == other_high) continue;
        if (offsets[i].value + low < offsets[j].value + other_high &&
            offsets[j].value + other_low < offsets[i].value + high) {
          return false;
        }
      }
    }
  }
  return true;
}

// The rules of validator.h, pair by pair.
inline bool is_valid(const Problem& problem, const Solution& solution) {
  const auto& buffers = problem.buffers;
  if (solution.offsets.size() != buffers.size() || solution.height.value < 0) return false;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const std::int64_t at = solution.offsets[i].value;
    if (at < 0 || at % buffers[i].alignment.value != 0) return false;
    if (buffers[i].fixed && buffers[i].fixed->value != at) return false;
    if (at + buffers[i].size.value > solution.height.value) return false;
    for (std::size_t j = 0; j < i; ++j) {
      const std::int64_t other = solution.offsets[j].value;
      const bool apart = at + buffers[i].size.value <= other ||
                         other + buffers[j].size.value <= at || buffers[i].size.value == 0 ||
                         buffers[j].size.value == 0;
      if (!apart && live_together(buffers[i], buffers[j])) return false;
    }
  }
  return true;
}

// First fit by trying, for each buffer, zero and every end, lowest first. Fixed buffers come first.
inline std::int64_t first_fit_height(const Problem& problem,
                                     const std::vector<std::size_t>& order) {
  std::vector<std::pair<std::size_t, std::int64_t>> placed;
  std::int64_t height = 0;
  for (std::size_t i = 0; i < problem.buffers.size(); ++i) {
    const Buffer& buffer = problem.buffers[i];
    if (!buffer.fixed) continue;
    placed.emplace_back(i, buffer.fixed->value);
    height = std::max(height, buffer.fixed->value + buffer.size.value);
  }
  for (const std::size_t i : order) {
    const Buffer& newcomer = problem.buffers[i];
    if (newcomer.fixed) continue;
    std::vector<std::int64_t> places{0};
    for (const auto& [j, offset] : placed) {
      places.push_back(align_up(offset + problem.buffers[j].size.value, newcomer.alignment.value));
    }
    std::sort(places.begin(), places.end());
    const auto is_free = [&](std::int64_t at) {
      return std::none_of(placed.begin(), placed.end(), [&](const auto& entry) {
        const Buffer& other = problem.buffers[entry.first];
        return newcomer.size.value > 0 && other.size.value > 0 && live_together(newcomer, other) &&
               at < entry.second + other.size.value && entry.second < at + newcomer.size.value;
      });
    };
    const std::int64_t at = *std::find_if(places.begin(), places.end(), is_free);
    placed.emplace_back(i, at);
    height = std::max(height, at + newcomer.size.value);
  }
  return height;
}

// The optimum, because some order of first fit always reaches it. For a handful of buffers.
inline std::int64_t optimal_height(const Problem& problem) {
  std::vector<std::size_t> order(problem.buffers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::int64_t best = first_fit_height(problem, order);
  while (std::next_permutation(order.begin(), order.end())) {
    best = std::min(best, first_fit_height(problem, order));
  }
  return best;
}

struct RandomShape {
  std::size_t buffers = 50;
  std::int64_t ticks = 40;
  std::int64_t max_size = 4096;
  bool has_wrapping = true;
  bool has_alignment = true;
};

inline Problem random_problem(std::mt19937_64& random, const RandomShape& shape) {
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  Problem problem;
  for (std::size_t i = 0; i < shape.buffers; ++i) {
    const Tick birth{below(shape.ticks)};
    const std::int64_t size = below(shape.max_size + 1);
    Buffer made;
    if (shape.has_wrapping && below(5) == 0) {
      made = wrapping(Bytes{size}, birth, Tick{below(shape.ticks)}, Tick{shape.ticks});
      made.alignment = Bytes{1};
    } else {
      made = buffer(size, birth.value, birth.value + 1 + below(shape.ticks - birth.value));
    }
    if (shape.has_alignment) made.alignment = Bytes{std::int64_t{1} << below(10)};
    problem.buffers.push_back(made);
  }
  return problem;
}

}  // namespace ebbtide::reference
