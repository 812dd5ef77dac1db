#include "allocator/plan/problem.h"

#include <algorithm>
#include <string>

#include "allocator/base/check.h"
#include "allocator/plan/live_sweep.h"

namespace ebbtide {
namespace {

Error refuse(const std::string& name, const std::string& reason) {
  return {ErrorCode::kInvalidArgument, name + " " + reason};
}

bool are_valid_windows(const Buffer& buffer) {
  Tick last = buffer.live.front().birth;
  for (const Window& window : buffer.windows) {
    const bool is_inside =
        std::any_of(buffer.live.begin(), buffer.live.end(), [&](const Interval& interval) {
          return interval.birth <= window.when.birth && window.when.death <= interval.death;
        });
    if (!is_inside || !window.when.is_valid() || window.when.birth < last) return false;
    if (window.low < Bytes{0} || window.low >= window.high || window.high > buffer.size) {
      return false;
    }
    last = window.when.death;
  }
  return true;
}

// The reason why the buffer alone is not acceptable, or an empty string.
std::string fault_of(const Buffer& buffer) {
  if (buffer.size.value < 0) {
    return "has a negative size (" + std::to_string(buffer.size.value) + ")";
  }
  if (buffer.alignment.value <= 0) {
    return "has alignment " + std::to_string(buffer.alignment.value) + ", it must be positive";
  }
  if (buffer.live.empty()) return "is never live";
  if (!buffer.live.is_valid()) return "has live intervals that are empty, unsorted or overlapping";
  if (buffer.arena >= kMostArenas) {
    return "is in arena " + std::to_string(buffer.arena) + ", there may be " +
           std::to_string(kMostArenas);
  }
  if (!are_valid_windows(buffer)) {
    return "has windows that are empty, out of order, not inside its life or not inside its size";
  }
  if (!buffer.fixed) return "";
  const std::int64_t offset = buffer.fixed->value;
  if (offset < 0) return "is fixed at a negative offset (" + std::to_string(offset) + ")";
  if (offset % buffer.alignment.value != 0) {
    return "is fixed at offset " + std::to_string(offset) + ", not a multiple of its alignment " +
           std::to_string(buffer.alignment.value);
  }
  return "";
}

// Room left below kMaxTotal after the buffer's size, alignment and fixed end; negative: too much.
std::int64_t take_room(std::int64_t room, const Buffer& buffer) {
  const std::int64_t offset = buffer.fixed ? buffer.fixed->value : 0;
  for (const std::int64_t part : {buffer.size.value, buffer.alignment.value, offset}) {
    if (part > room) return -1;
    room -= part;
  }
  return room;
}

Status check_fixed(const Problem& problem, std::span<const std::string> names) {
  std::vector<PlacedRange> placed;
  for (std::size_t i = 0; i < problem.buffers.size(); ++i) {
    const Buffer& buffer = problem.buffers[i];
    if (buffer.fixed) add_placed(buffer, static_cast<std::uint32_t>(i), *buffer.fixed, placed);
  }
  const auto clash = find_overlap(placed);
  if (!clash) return Nothing{};
  return Error{ErrorCode::kInfeasible, name_of(clash->first, names) + " and " +
                                           name_of(clash->second, names) +
                                           " are fixed at overlapping offsets and live together"};
}

}  // namespace

Buffer wrapping(Bytes size, Tick birth, Tick death, Tick period) {
  EBBTIDE_CHECK_OP(birth.value, >=, 0);
  EBBTIDE_CHECK_OP(birth.value, <, period.value);
  EBBTIDE_CHECK_OP(death.value, >=, 0);
  Buffer buffer;
  buffer.size = size;
  const Tick zero{0};
  if (birth < death && death <= period) {
    buffer.live.push_back({birth, death});
    return buffer;
  }
  const Tick end = death > period ? Tick{death - period} : death;
  if (end >= birth) {
    buffer.live.push_back({zero, period});
    return buffer;
  }
  if (zero < end) buffer.live.push_back({zero, end});
  buffer.live.push_back({birth, period});
  return buffer;
}

std::vector<Segment> segments_of(const Buffer& buffer) {
  std::vector<Segment> segments;
  auto window = buffer.windows.begin();
  for (Interval rest : buffer.live) {
    for (; window != buffer.windows.end() && window->when.death <= rest.death; ++window) {
      if (rest.birth < window->when.birth) {
        segments.push_back({{rest.birth, window->when.birth}, Bytes{0}, buffer.size});
      }
      segments.push_back({window->when, window->low, window->high});
      rest.birth = window->when.death;
    }
    if (rest.is_valid()) segments.push_back({rest, Bytes{0}, buffer.size});
  }
  return segments;
}

bool has_windows(const Problem& problem) {
  return std::any_of(problem.buffers.begin(), problem.buffers.end(),
                     [](const Buffer& buffer) { return !buffer.windows.empty(); });
}

std::string name_of(std::size_t index, std::span<const std::string> names) {
  return names.empty() ? "buffer " + std::to_string(index) : names[index];
}

Status check(const Problem& problem, std::span<const std::string> names) {
  std::int64_t room = kMaxTotal.value;
  for (std::size_t i = 0; i < problem.buffers.size(); ++i) {
    const Buffer& buffer = problem.buffers[i];
    if (const std::string fault = fault_of(buffer); !fault.empty()) {
      return refuse(name_of(i, names), fault);
    }
    room = take_room(room, buffer);
    if (room < 0) {
      return refuse(name_of(i, names), "makes the sum of all sizes exceed 2^62 bytes");
    }
  }
  return check_fixed(problem, names);
}

}  // namespace ebbtide
