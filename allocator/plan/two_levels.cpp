#include "allocator/plan/two_levels.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "allocator/plan/layers.h"
#include "allocator/plan/solver.h"

namespace ebbtide {
namespace {

constexpr int kMostLevels = 3;                 // above the first
constexpr std::int64_t kLayerSteps = 100'000;  // of improvement, for all kinds together
constexpr std::int64_t kMostAlignment = std::int64_t{1}
                                        << 32;  // of a layer; beyond, all is lost to it

struct LayerPlan {
  std::vector<std::int64_t> offsets;  // of the layer's buffers, in its order
  std::int64_t height = 0;
  std::int64_t alignment = 1;  // of the whole
};

void add_buffer(CompactProblem& problem, std::int64_t size, std::int64_t alignment,
                std::int64_t fixed, std::span<const SectionRange> ranges) {
  if (fixed != CompactProblem::kFree) {
    problem.fixed_buffers.push_back(problem.count());
    problem.fixed_top = std::max(problem.fixed_top, fixed + size);
  }
  problem.sizes.push_back(size);
  problem.alignments.push_back(alignment);
  problem.fixed.push_back(fixed);
  for (const SectionRange& range : ranges) {
    problem.spans.push_back(
        {static_cast<std::int32_t>(range.first), static_cast<std::int32_t>(range.last)});
  }
  problem.starts.push_back(static_cast<std::uint32_t>(problem.spans.size()));
}

// One level: the layers of an instance, each kind planned, and the instance of whole layers.
class Level {
 public:
  explicit Level(const Instance& instance) : instance_(instance), found_(find_layers(instance)) {}

  // Whether layers come again, and the problem of whole ones is clearly smaller.
  bool is_worthwhile() const {
    std::size_t saved = 0;
    for (const Layer& layer : found_.layers) saved += layer.buffers.size() - 1;
    return found_.layers.size() >= 2 * std::size_t{found_.kinds} &&
           saved * 4 > instance_.buffers.count();
  }

  // Plans each kind once. False if a layer's alignment is out of all proportion.
  bool plan_layers() {
    plans_.resize(found_.kinds);
    for (const Layer& layer : found_.layers) {
      LayerPlan& plan = plans_[layer.kind];
      if (!plan.offsets.empty()) continue;
      plan = plan_layer(layer);
      if (plan.alignment > kMostAlignment) return false;
    }
    return true;
  }

  Instance whole_layers() {
    std::vector<bool> is_inside(instance_.buffers.count(), false);
    CompactProblem problem;
    problem.starts.push_back(0);
    for (const Layer& layer : found_.layers) {
      const LayerPlan& plan = plans_[layer.kind];
      add_buffer(problem, plan.height, plan.alignment, CompactProblem::kFree, {&layer.sections, 1});
      for (const std::uint32_t b : layer.buffers) is_inside[b] = true;
    }
    for (std::uint32_t b = 0; b < instance_.buffers.count(); ++b) {
      if (is_inside[b] || instance_.sections.of(b).empty()) continue;
      outside_.push_back(b);
      add_buffer(problem, instance_.buffers.sizes[b], instance_.buffers.alignments[b],
                 instance_.buffers.fixed[b], instance_.sections.of(b));
    }
    return Instance(std::move(problem));
  }

  // From the offsets of whole_layers()' buffers.
  std::vector<std::int64_t> expand(const std::vector<std::int64_t>& whole) const {
    std::vector<std::int64_t> offsets(instance_.buffers.count(), 0);
    for (const std::uint32_t b : instance_.buffers.fixed_buffers) {
      offsets[b] = instance_.buffers.fixed[b];  // also those that take no room
    }
    std::size_t next = 0;
    for (const Layer& layer : found_.layers) {
      const std::int64_t base = whole[next++];
      const LayerPlan& plan = plans_[layer.kind];
      for (std::size_t i = 0; i < layer.buffers.size(); ++i) {
        offsets[layer.buffers[i]] = base + plan.offsets[i];
      }
    }
    for (const std::uint32_t b : outside_) offsets[b] = whole[next++];
    return offsets;
  }

 private:
  LayerPlan plan_layer(const Layer& layer) const {
    LayerPlan plan;
    CompactProblem problem;
    problem.starts.push_back(0);
    for (const std::uint32_t b : layer.buffers) {
      SectionRange range = instance_.sections.of(b).front();
      range = {range.first - layer.sections.first, range.last - layer.sections.first};
      const std::int64_t alignment = instance_.buffers.alignments[b];
      add_buffer(problem, instance_.buffers.sizes[b], alignment, CompactProblem::kFree,
                 {&range, 1});
      plan.alignment = std::min(kMostAlignment + 1, std::lcm(plan.alignment, alignment));
    }
    SolveOptions options;
    options.improvement_steps = kLayerSteps / found_.kinds;
    options.is_single_level = true;
    const Solution solution = solve(Instance(std::move(problem)), options);
    for (const Offset offset : solution.offsets) plan.offsets.push_back(offset.value);
    plan.height = solution.height.value;
    return plan;
  }

  const Instance& instance_;
  Layers found_;
  std::vector<LayerPlan> plans_;        // of each kind
  std::vector<std::uint32_t> outside_;  // buffers of no layer that take room
};

std::optional<std::vector<std::int64_t>> plan_from(int levels, const Instance& instance,
                                                   const TopSolver& solve_top) {
  if (levels == 0) return std::nullopt;
  Level level(instance);
  if (!level.is_worthwhile() || !level.plan_layers()) return std::nullopt;
  const Instance whole = level.whole_layers();
  const auto above = plan_from(levels - 1, whole, solve_top);
  return level.expand(above ? *above : solve_top(whole));
}

}  // namespace

std::optional<std::vector<std::int64_t>> plan_by_levels(const Instance& instance,
                                                        const TopSolver& solve_top) {
  return plan_from(kMostLevels, instance, solve_top);
}

}  // namespace ebbtide
