#include "allocator/runtime/resident_timeline.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ebbtide {
namespace {

std::int64_t segment_length(const Program& program) { return static_cast<std::int64_t>(program.nodes.size()) + 1; }

bool is_before(const Resident& resident, RootId root) { return resident.root < root; }

std::vector<Interval> merged(std::vector<Interval> live) {
  std::sort(live.begin(), live.end(), [](const Interval& a, const Interval& b) { return a.birth < b.birth; });
  std::vector<Interval> merged;
  for (const Interval& interval : live) {
    if (!merged.empty() && interval.birth <= merged.back().death) {
      merged.back().death = std::max(merged.back().death, interval.death);
    } else {
      merged.push_back(interval);
    }
  }
  return merged;
}

}  // namespace

bool are_alive_together(const Resident& a, const Resident& b) {
  return std::any_of(a.live.begin(), a.live.end(), [&](const Interval& left) {
    return std::any_of(b.live.begin(), b.live.end(), [&](const Interval& right) {
      return left.birth < right.death && right.birth < left.death;
    });
  });
}

bool is_resident(const Program& program, std::size_t node) {
  return !program.nodes[node].unplanned && program.nodes[node].survives();
}

ResidentTimeline::ResidentTimeline(const ProgramBook& book) {
  for (const Program& program : book.programs) add_program(book, program);
  for (Resident& resident : residents_) resident.live = merged(std::move(resident.live));
}

void ResidentTimeline::add_program(const ProgramBook& book, const Program& program) {
  const Tick begin = end_;
  begins_.push_back(begin);
  end_ = begin + segment_length(program);
  for (const Incoming& incoming : program.incoming) {
    if (book.is_permanent(incoming.root)) continue;
    add_interval(incoming.root, incoming.size, begin, begin + clipped(incoming.end, program).value);
  }
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    if (!is_resident(program, i)) continue;
    const Node& node = program.nodes[i];
    Resident* resident = add_interval(node.root, node.slot, begin + static_cast<std::int64_t>(i), end_);
    resident->grows |= !program.is_constant(node.size_class);
  }
}

// Null if the interval is empty.
Resident* ResidentTimeline::add_interval(RootId root, Bytes size, Tick birth, Tick death) {
  if (death <= birth) return nullptr;
  auto place = std::lower_bound(residents_.begin(), residents_.end(), root, is_before);
  if (place == residents_.end() || place->root != root) place = residents_.insert(place, {root, {}, {}, false});
  place->size = std::max(place->size, size);
  place->live.push_back({birth, death});
  return &*place;
}

bool ResidentTimeline::contains(RootId root) const {
  const auto place = std::lower_bound(residents_.begin(), residents_.end(), root, is_before);
  return place != residents_.end() && place->root == root;
}

Tick ResidentTimeline::clipped(Tick tick, const Program& program) {
  return Tick{std::min(tick.value, segment_length(program))};
}

// What does not grow comes first, so that its place is the same at every length; then what is alive
// longest. Gradients so form a stack from the bottom in the order of their birth, and whatever dies
// before the next one is born may still use the place above.
std::vector<std::uint32_t> ResidentTimeline::packing_order() const {
  std::vector<std::uint32_t> order(residents_.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [this](std::uint32_t a, std::uint32_t b) {
    if (residents_[a].grows != residents_[b].grows) return residents_[b].grows;
    return residents_[a].ticks_alive() > residents_[b].ticks_alive();
  });
  return order;
}

}  // namespace ebbtide
