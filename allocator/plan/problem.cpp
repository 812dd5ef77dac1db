#include "allocator/plan/problem.h"

#include <string>

#include "allocator/base/check.h"
#include "allocator/plan/live_sweep.h"

namespace ebbtide {
namespace {

Error refuse(const std::string& name, const std::string& reason) {
  return {ErrorCode::kInvalidArgument, name + " " + reason};
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
    if (!buffer.fixed || buffer.size == Bytes{0}) continue;
    placed.push_back({static_cast<std::uint32_t>(i), *buffer.fixed, buffer.size, &buffer.live});
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
