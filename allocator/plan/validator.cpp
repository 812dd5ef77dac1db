#include "allocator/plan/validator.h"

#include <string>

#include "allocator/plan/live_sweep.h"

namespace ebbtide {
namespace {

using Names = std::span<const std::string>;

std::string describe(const Problem& problem, const Solution& solution, std::size_t index,
                     Names names) {
  return name_of(index, names) + " (size " + std::to_string(problem.buffers[index].size.value) +
         ", offset " + std::to_string(solution.offsets[index].value) + ")";
}

// The rule that the buffer's own offset breaks, or an empty string.
std::string fault_of(const Buffer& buffer, Offset offset, Bytes height) {
  if (offset.value < 0) return "is at a negative offset";
  if (offset.value % buffer.alignment.value != 0) {
    return "is not aligned to " + std::to_string(buffer.alignment.value);
  }
  if (buffer.fixed && *buffer.fixed != offset) {
    return "is not at its fixed offset " + std::to_string(buffer.fixed->value);
  }
  // Written as a difference so that no offset, however large, overflows.
  if (offset.value > height.value || buffer.size.value > height.value - offset.value) {
    return "ends above the height " + std::to_string(height.value);
  }
  return "";
}

}  // namespace

Status validate(const Problem& problem, const Solution& solution, Names names) {
  const std::size_t n = problem.buffers.size();
  if (solution.offsets.size() != n) {
    return Error{ErrorCode::kBadPlan, "the plan has " + std::to_string(solution.offsets.size()) +
                                          " offsets for " + std::to_string(n) + " buffers"};
  }
  if (solution.height.value < 0) return Error{ErrorCode::kBadPlan, "the height is negative"};
  std::vector<PlacedRange> placed;
  placed.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    const Buffer& buffer = problem.buffers[i];
    const Offset offset = solution.offsets[i];
    const std::string fault = fault_of(buffer, offset, solution.height);
    if (!fault.empty()) {
      return Error{ErrorCode::kBadPlan, describe(problem, solution, i, names) + " " + fault};
    }
    add_placed(buffer, static_cast<std::uint32_t>(i), offset, placed);
  }
  const auto clash = find_overlap(placed);
  if (!clash) return Nothing{};
  return Error{ErrorCode::kBadPlan, describe(problem, solution, clash->first, names) + " and " +
                                        describe(problem, solution, clash->second, names) +
                                        " live at the same tick and overlap"};
}

}  // namespace ebbtide
