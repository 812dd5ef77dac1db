#include "allocator/plan/windowed.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "allocator/plan/orders.h"
#include "allocator/plan/pass.h"
#include "allocator/plan/solver.h"

namespace ebbtide {
namespace {

constexpr std::size_t kMostBarriers = 4'000'000;
constexpr std::int64_t kNotPlaced = -1;
constexpr std::int64_t kFirstSteps = 20'000;  // of solve(), for which buffers are whole
constexpr int kSqueezes = 20;
constexpr int kCoolingSteps = 3000;       // after which the search begins anew from the best plan
constexpr double kFirstThreshold = 0.03;  // of the height

}  // namespace

WindowedSearch::WindowedSearch(const Problem& problem, const AnytimeOptions& options)
    : problem_(problem),
      options_(options),
      begin_(std::chrono::steady_clock::now()),
      instance_(problem),
      random_(options.seed) {}

double WindowedSearch::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

bool WindowedSearch::is_over() const {
  if (best_.height.value <= instance_.bound) return true;
  return options_.capacity &&
         (best_.height <= *options_.capacity || instance_.bound > options_.capacity->value);
}

bool WindowedSearch::must_stop() const {
  return seconds() > options_.time_limit || (options_.should_stop && options_.should_stop());
}

// False if there are too many.
bool WindowedSearch::find_barriers() {
  struct Piece {
    Segment segment;
    std::uint32_t buffer;
  };
  std::vector<Piece> pieces;
  for (std::uint32_t b = 0; b < problem_.buffers.size(); ++b) {
    if (problem_.buffers[b].size == Bytes{0}) continue;
    for (const Segment& segment : segments_of(problem_.buffers[b])) pieces.push_back({segment, b});
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.segment.when.birth < b.segment.when.birth;
  });
  barriers_.resize(problem_.buffers.size());
  std::vector<Piece> live;
  std::size_t count = 0;
  for (const Piece& piece : pieces) {
    std::erase_if(live, [&](const Piece& other) {
      return other.segment.when.death <= piece.segment.when.birth;
    });
    for (const Piece& other : live) {
      if (other.buffer == piece.buffer) continue;
      const std::int64_t low = (other.segment.low - piece.segment.high).value;
      const std::int64_t high = (other.segment.high - piece.segment.low).value;
      barriers_[piece.buffer].push_back({other.buffer, low, high});
      barriers_[other.buffer].push_back({piece.buffer, -high, -low});
      if (++count > kMostBarriers) return false;
    }
    live.push_back(piece);
  }
  for (auto& barriers : barriers_) {
    const auto key = [](const Barrier& b) { return std::tuple(b.other, b.low, b.high); };
    std::ranges::sort(barriers, {}, key);
    const auto rest = std::ranges::unique(barriers, {}, key);
    barriers.erase(rest.begin(), rest.end());
  }
  return true;
}

std::int64_t WindowedSearch::lowest_place(std::uint32_t buffer) {
  forbidden_.clear();
  for (const Barrier& barrier : barriers_[buffer]) {
    const std::int64_t base = offsets_[barrier.other];
    if (base != kNotPlaced) forbidden_.emplace_back(base + barrier.low, base + barrier.high);
  }
  std::sort(forbidden_.begin(), forbidden_.end());
  std::int64_t place = 0;
  for (const auto& [low, high] : forbidden_) {
    if (place <= low) break;
    if (place < high) place = align_up(high, instance_.buffers.alignments[buffer]);
  }
  return place;
}

std::int64_t WindowedSearch::fit(const Order& order, std::int64_t limit) {
  offsets_.assign(problem_.buffers.size(), kNotPlaced);
  std::int64_t height = instance_.buffers.fixed_top;
  for (const std::uint32_t b : instance_.buffers.fixed_buffers) {
    offsets_[b] = instance_.buffers.fixed[b];
  }
  for (const std::uint32_t b : order) {
    if (offsets_[b] != kNotPlaced) continue;
    offsets_[b] = lowest_place(b);
    height = std::max(height, offsets_[b] + instance_.buffers.sizes[b]);
    if (height >= limit) return height;
  }
  return height;
}

// What fit() has just left, if it is lower than the best.
void WindowedSearch::take(std::int64_t height, const Order& order) {
  if (height >= best_.height.value) return;
  for (std::size_t b = 0; b < offsets_.size(); ++b) best_.offsets[b] = {offsets_[b]};
  best_.height = {height};
  best_.order = order;
  if (options_.on_progress) options_.on_progress({best_.height, lower_bound(), seconds()});
}

// Again in the order of its offsets, as long as that makes it lower.
void WindowedSearch::squeeze(Order order, std::int64_t height) {
  for (int i = 0; i < kSqueezes && !is_over() && !must_stop(); ++i) {
    order = order_by_offset(offsets_);
    const std::int64_t next = fit(order, height);
    if (next >= height) return;
    height = next;
    take(height, order);
  }
}

void WindowedSearch::try_orders() {
  const GreedyOrders orders(instance_.buffers, instance_.sections);
  std::vector<Order> all{best_.order};
  for (const OrderRule rule : kOrderRules) all.push_back(orders.make(rule));
  for (const Order& order : all) {
    if (is_over() || must_stop()) return;
    const std::int64_t height = fit(order, Pass::kNoLimit);
    take(height, order);
    squeeze(order, height);
  }
}

// A buffer near the top comes earlier, by a random number of places.
WindowedSearch::Order WindowedSearch::neighbour(const Order& order, std::int64_t height) {
  Order next = order;
  const auto n = next.size();
  std::size_t from = random_() % n;
  for (int i = 0; i < 8; ++i) {
    const std::uint32_t b = next[from];
    if (offsets_[b] + instance_.buffers.sizes[b] >= height - height / 16) break;
    from = random_() % n;
  }
  const std::size_t to = from == 0 ? random_() % n : random_() % from;
  const auto at = [&](std::size_t i) { return next.begin() + static_cast<std::ptrdiff_t>(i); };
  if (to < from) {
    std::rotate(at(to), at(from), at(from) + 1);
  } else {
    std::rotate(at(from), at(from) + 1, at(to) + 1);
  }
  return next;
}

// Threshold accepting (Dueck, Scheuer 1990), again and again.
void WindowedSearch::search() {
  while (!is_over()) {
    Order current = best_.order;
    std::int64_t height = fit(current, Pass::kNoLimit);
    for (int step = 0; step < kCoolingSteps; ++step) {
      if (must_stop()) return;
      const double left = 1.0 - static_cast<double>(step) / kCoolingSteps;
      const auto limit =
          height + static_cast<std::int64_t>(left * kFirstThreshold * static_cast<double>(height));
      std::vector<std::int64_t> before = offsets_;
      Order next = neighbour(current, height);
      const std::int64_t found = fit(next, limit + 1);
      if (found > limit) {
        offsets_ = std::move(before);
        continue;
      }
      current = std::move(next);
      height = found;
      take(height, current);
      if (is_over()) return;
    }
  }
}

Solution WindowedSearch::run() {
  SolveOptions options;
  options.seed = options_.seed;
  options.improvement_steps = kFirstSteps;
  options.should_stop = [this] { return must_stop(); };
  best_ = solve(instance_, options);
  if (options_.on_progress) options_.on_progress({best_.height, lower_bound(), seconds()});
  if (is_over() || must_stop() || !find_barriers()) return std::move(best_);
  try_orders();
  search();
  return std::move(best_);
}

}  // namespace ebbtide
