#include "allocator/plan/live_sweep.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <vector>

namespace ebbtide {
namespace {

struct Event {
  std::int64_t tick;
  bool is_birth;  // deaths come first within a tick: lifetimes are half-open
  std::uint32_t slot;
};

std::vector<Event> events_of(std::span<const PlacedRange> placed) {
  std::vector<Event> events;
  events.reserve(placed.size() * 2);
  for (std::uint32_t slot = 0; slot < placed.size(); ++slot) {
    events.push_back({placed[slot].when.birth.value, true, slot});
    events.push_back({placed[slot].when.death.value, false, slot});
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return a.tick != b.tick ? a.tick < b.tick : a.is_birth < b.is_birth;
  });
  return events;
}

}  // namespace

void add_placed(const Buffer& buffer, std::uint32_t index, Offset offset,
                std::vector<PlacedRange>& placed) {
  if (buffer.size == Bytes{0}) return;
  if (buffer.windows.empty()) {
    for (const Interval& interval : buffer.live) {
      placed.push_back({index, buffer.arena, offset, buffer.size, interval});
    }
    return;
  }
  for (const Segment& segment : segments_of(buffer)) {
    placed.push_back({index, buffer.arena, Offset{offset.value + segment.low.value},
                      segment.high - segment.low, segment.when});
  }
}

std::optional<std::pair<std::uint32_t, std::uint32_t>> find_overlap(
    std::span<const PlacedRange> placed) {
  // The live ones by arena and offset. Until the first overlap they are disjoint, so a newcomer can
  // only meet its two neighbours.
  const auto by_offset = [&](std::uint32_t a, std::uint32_t b) {
    return std::tuple(placed[a].arena, placed[a].offset, a) <
           std::tuple(placed[b].arena, placed[b].offset, b);
  };
  std::set<std::uint32_t, decltype(by_offset)> live(by_offset);
  const auto meets = [&](std::uint32_t low, std::uint32_t high) {
    return placed[low].arena == placed[high].arena &&
           placed[low].offset + placed[low].size > placed[high].offset;
  };
  for (const Event& event : events_of(placed)) {
    if (!event.is_birth) {
      live.erase(event.slot);
      continue;
    }
    const auto [at, inserted] = live.insert(event.slot);
    if (at != live.begin() && meets(*std::prev(at), event.slot)) {
      return std::pair{placed[*std::prev(at)].index, placed[event.slot].index};
    }
    if (std::next(at) != live.end() && meets(event.slot, *std::next(at))) {
      return std::pair{placed[event.slot].index, placed[*std::next(at)].index};
    }
  }
  return std::nullopt;
}

}  // namespace ebbtide
