#include "allocator/plan/parts_fill.h"

#include <algorithm>
#include <utility>

#include "allocator/base/units.h"

namespace ebbtide {
namespace {

constexpr std::uint32_t kManyBuffers = 100'000;  // from here on there is a base
constexpr std::uint32_t kBaseShare = 8;          // who lives longer than 1 / 8 of all may be in it

}  // namespace

PartsFill::PartsFill(const Instance& instance)
    : instance_(instance),
      offsets_(instance.buffers.count(), 0),
      skyline_(std::max(1U, instance.sections.count())),
      parts_(instance.buffers, instance.sections, fill_base()),
      fills_(parts_.count()) {}

void PartsFill::place_fixed(std::vector<bool>& is_placed) {
  const CompactProblem& problem = instance_.buffers;
  for (const std::uint32_t b : problem.fixed_buffers) {
    offsets_[b] = problem.fixed[b];
    is_placed[b] = true;
    const std::int64_t end = offsets_[b] + problem.sizes[b];
    base_.height = std::max(base_.height, end);
    for (const SectionRange& range : instance_.sections.of(b)) skyline_.lift(range, end);
    base_.is_packed = false;
  }
}

// Says which buffers are in the base, the fixed ones among them.
std::vector<bool> PartsFill::fill_base() {
  const CompactProblem& problem = instance_.buffers;
  const Sections& sections = instance_.sections;
  std::vector<bool> is_placed(problem.count(), false);
  place_fixed(is_placed);
  if (problem.count() < kManyBuffers) return is_placed;
  std::vector<std::uint32_t> wide;
  for (std::uint32_t b = 0; b < problem.count(); ++b) {
    const auto ranges = sections.of(b);
    if (ranges.empty() || is_placed[b]) continue;
    if (ranges.back().last - ranges.front().first > sections.count() / kBaseShare) {
      wide.push_back(b);
    }
  }
  const SectionRange all{0, sections.count()};
  for (const std::uint32_t b : fill_order(problem, sections, all, wide, FillRule::kCrowdWidth)) {
    const auto ranges = sections.of(b);
    const std::int64_t floor = skyline_.floor_at(ranges.front().first);
    const bool is_level = std::ranges::all_of(
        ranges, [&](const SectionRange& range) { return skyline_.is_level(range, floor); });
    if (!is_level) continue;
    offsets_[b] = align_up(floor, problem.alignments[b]);
    const std::int64_t end = offsets_[b] + problem.sizes[b];
    base_.height = std::max(base_.height, end);
    base_.is_packed &= offsets_[b] == floor && ranges.size() == 1;
    for (const SectionRange& range : ranges) skyline_.raise(range, end);
    is_placed[b] = true;
  }
  return is_placed;
}

void PartsFill::fill(std::size_t part, std::span<const FillRule> rules, std::int64_t target,
                     const std::function<bool()>& should_stop) {
  const auto buffers = parts_.buffers(part);
  const SectionRange within = parts_.sections(part);
  std::vector<std::int64_t> best;  // of the buffers, while another rule is tried
  for (const FillRule rule : rules) {
    const bool is_first = rule == rules.front();
    if (!is_first) {
      if (fills_[part].height <= target || (should_stop && should_stop())) return;
      best.clear();
      for (const std::uint32_t b : buffers) best.push_back(offsets_[b]);
    }
    const auto order = fill_order(instance_.buffers, instance_.sections, within, buffers, rule);
    const Fill next = fill_valleys(instance_.buffers, instance_.sections, within, order,
                                   skyline_.slice(within), offsets_);
    if (is_first || next.height < fills_[part].height) {
      fills_[part] = next;
    } else {
      for (std::size_t i = 0; i < buffers.size(); ++i) offsets_[buffers[i]] = best[i];
    }
  }
}

ValleyPlan PartsFill::plan() && {
  ValleyPlan plan{std::move(offsets_), base_.height, base_.is_packed};
  for (const Fill& fill : fills_) {
    plan.height = std::max(plan.height, fill.height);
    plan.is_packed &= fill.is_packed;
  }
  return plan;
}

ValleyPlan fill_parts(const Instance& instance, std::span<const FillRule> rules,
                      std::int64_t target, const std::function<bool()>& should_stop) {
  PartsFill filling(instance);
  for (std::size_t part = 0; part < filling.count(); ++part) {
    filling.fill(part, rules, target, should_stop);
  }
  return std::move(filling).plan();
}

}  // namespace ebbtide
