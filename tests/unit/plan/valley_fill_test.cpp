#include "allocator/plan/valley_fill.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "allocator/plan/anytime.h"
#include "allocator/plan/contained_index.h"
#include "allocator/plan/parts_fill.h"
#include "allocator/plan/pass.h"
#include "allocator/plan/skyline.h"
#include "allocator/plan/validator.h"
#include "tests/fakes/training_problem.h"
#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;

TEST(Sections, AreTheMomentsWhoseLiveSetsAreContainedInNoOther) {
  const Problem problem{
      {buffer(1, 0, 4), buffer(2, 1, 2), buffer(4, 2, 6), buffer(0, 0, 9), buffer(8, 7, 8)}};
  const Sections sections(compact(problem));
  ASSERT_EQ(sections.count(), 3U);
  EXPECT_EQ(sections.load(0), 3);
  EXPECT_EQ(sections.load(1), 5);
  EXPECT_EQ(sections.load(2), 8);
  EXPECT_EQ(sections.max_load(), 8);
  EXPECT_EQ(sections.of(0).front(), (SectionRange{0, 2}));
  EXPECT_TRUE(sections.of(3).empty());
}

TEST(Sections, AreSharedExactlyByBuffersThatLiveTogether) {
  std::mt19937_64 random(41);
  for (int i = 0; i < 50; ++i) {
    const Problem problem = reference::random_problem(random, {.buffers = 30, .ticks = 25});
    const CompactProblem compacted = compact(problem);
    const Sections sections(compacted);
    const auto share = [&](std::uint32_t a, std::uint32_t b) {
      for (const SectionRange& x : sections.of(a)) {
        for (const SectionRange& y : sections.of(b)) {
          if (x.first < y.last && y.first < x.last) return true;
        }
      }
      return false;
    };
    for (std::uint32_t a = 0; a < compacted.count(); ++a) {
      for (std::uint32_t b = 0; b < a; ++b) {
        if (compacted.sizes[a] == 0 || compacted.sizes[b] == 0) continue;
        EXPECT_EQ(share(a, b), reference::live_together(problem.buffers[a], problem.buffers[b]));
      }
    }
  }
}

TEST(ContainedIndex, FindsWhatASearchOfAllFinds) {
  std::mt19937_64 random(42);
  std::vector<SectionRange> ranges;
  for (int i = 0; i < 300; ++i) {
    const auto first = static_cast<std::uint32_t>(random() % 60);
    ranges.push_back({first, first + 1 + static_cast<std::uint32_t>(random() % 12)});
  }
  ContainedIndex index(ranges);
  std::vector<bool> erased(ranges.size(), false);
  for (int i = 0; i < 2000; ++i) {
    const auto first = static_cast<std::uint32_t>(random() % 60);
    const SectionRange inside{first, first + 1 + static_cast<std::uint32_t>(random() % 30)};
    const auto is_even = [&](std::uint32_t rank) { return i % 2 == 0 || rank % 2 == 0; };
    std::uint32_t expected = ContainedIndex::kNone;
    for (std::uint32_t r = 0; r < ranges.size() && expected == ContainedIndex::kNone; ++r) {
      const bool is_inside = ranges[r].first >= inside.first && ranges[r].last <= inside.last;
      if (!erased[r] && is_inside && is_even(r)) expected = r;
    }
    ASSERT_EQ(index.best(inside, is_even), expected);
    if (expected == ContainedIndex::kNone || i % 3 != 0) continue;
    index.erase(expected);
    erased[expected] = true;
  }
}

TEST(Skyline, RaisedStretchesMergeWithEqualNeighbours) {
  Skyline skyline(10);
  skyline.raise({2, 5}, 8);
  EXPECT_EQ(skyline.lowest(), (SectionRange{0, 2}));
  skyline.raise({0, 2}, 8);
  EXPECT_EQ(skyline.lowest(), (SectionRange{5, 10}));
  EXPECT_TRUE(skyline.is_level({0, 5}, 8));
  skyline.raise_to_wall(5);
  EXPECT_EQ(skyline.lowest(), (SectionRange{0, 10}));
  EXPECT_EQ(skyline.floor_at(9), 8);
}

TEST(ValleyFill, PlansAreValidAndFirstFitGivesThePackedOnesAgain) {
  std::mt19937_64 random(43);
  int packed = 0;
  for (int i = 0; i < 120; ++i) {
    const bool is_plain = i % 2 == 0;
    const Problem problem = reference::random_problem(
        random,
        {.buffers = 60, .ticks = 30, .has_wrapping = !is_plain, .has_alignment = !is_plain});
    const Instance instance(problem);
    const CompactProblem& compacted = instance.buffers;
    for (const FillRule rule : kFillRules) {
      const ValleyPlan plan = fill_parts(instance, {&rule, 1}, 0, {});
      Solution solution;
      for (const std::int64_t offset : plan.offsets) solution.offsets.push_back({offset});
      solution.height = {plan.height};
      ASSERT_TRUE(reference::is_valid(problem, solution));
      EXPECT_TRUE(!is_plain || plan.is_packed);
      if (!plan.is_packed) continue;
      ++packed;
      std::vector<std::uint32_t> order(compacted.count());
      for (std::uint32_t b = 0; b < order.size(); ++b) order[b] = b;
      std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
        return plan.offsets[a] < plan.offsets[b];
      });
      Pass pass(compacted);
      EXPECT_EQ(pass.run(order, FitRule::kFirst), plan.height);
      EXPECT_EQ(pass.offsets(), plan.offsets);
    }
  }
  EXPECT_GE(packed, 300);
}

TEST(ValleyFill, ManyIterationsOfTrainingAreAtTheBound) {
  const Instance instance(fakes::training_problem({.layers = 200}));
  EXPECT_EQ(fill_parts(instance, kFillRules, instance.bound, {}).height, instance.bound);
}

TEST(Parts, AreCutWhereNoBufferLivesOnBothSides) {
  const Problem problem{
      {buffer(1, 0, 4), buffer(2, 2, 5), buffer(4, 5, 7), buffer(0, 0, 20), buffer(8, 8, 9)}};
  const Instance instance(problem);
  const Parts parts(instance.buffers, instance.sections, std::vector<bool>(5, false));
  ASSERT_EQ(parts.count(), 3U);
  EXPECT_THAT(parts.buffers(0), testing::ElementsAre(0, 1));
  EXPECT_THAT(parts.buffers(1), testing::ElementsAre(2));
  EXPECT_THAT(parts.buffers(2), testing::ElementsAre(4));
}

TEST(Parts, OneThatLivesThroughAllHoldsThemTogetherUnlessLeftOut) {
  const Problem problem{{buffer(1, 0, 4), buffer(2, 4, 8), buffer(4, 0, 8)}};
  const Instance instance(problem);
  EXPECT_EQ(Parts(instance.buffers, instance.sections, {false, false, false}).count(), 1U);
  EXPECT_EQ(Parts(instance.buffers, instance.sections, {false, false, true}).count(), 2U);
}

// `parts` random problems one after another, and some buffers that live through many of them.
Problem long_trace(std::mt19937_64& random, std::int64_t parts) {
  constexpr std::int64_t kTicks = 40;
  Problem problem;
  for (std::int64_t part = 0; part < parts; ++part) {
    for (Buffer one : reference::random_problem(random, {.buffers = 60, .ticks = kTicks}).buffers) {
      LiveRanges moved;
      for (const Interval& i : one.live) {
        moved.push_back({i.birth + part * kTicks, i.death + part * kTicks});
      }
      one.live = moved;
      problem.buffers.push_back(std::move(one));
    }
  }
  const std::int64_t end = parts * kTicks;
  for (int i = 0; i < 200; ++i) {
    const auto cut = static_cast<std::int64_t>(random() % 1000) * end / 2000;
    const auto size = static_cast<std::int64_t>(1 + random() % 50);
    Buffer wide = buffer(size, i % 3 == 0 ? 0 : cut, end);
    if (i % 5 == 0) wide.live = {{{0}, {cut / 2 + 1}}, {{end / 2}, {end}}};
    if (i % 7 == 0) wide.alignment = Bytes{16};
    problem.buffers.push_back(std::move(wide));
  }
  return problem;
}

TEST(ValleyFill, PlansOfLongTracesWithABaseAreValidAndTheSameForAnyNumberOfThreads) {
  std::mt19937_64 random(44);
  // 150,000 buffers are past all other strategies.
  const Problem problem = long_trace(random, 2600);
  AnytimeOptions options;
  options.time_limit = 0;
  const AnytimePlan first = solve_anytime(problem, options).value();
  EXPECT_TRUE(validate(problem, first.solution).ok());
  EXPECT_LE(first.solution.height.value, first.lower_bound.value * 11 / 10);
  options.threads = 2;
  const AnytimePlan second = solve_anytime(problem, options).value();
  EXPECT_EQ(first.solution, second.solution);
}

TEST(ValleyFill, FixedBuffersStay) {
  std::mt19937_64 random(45);
  Problem problem = long_trace(random, 40);
  for (std::int64_t i = 0; i < 50; ++i) {
    problem.buffers.push_back(reference::fixed_buffer(100, i * 30, i * 30 + 400, 128 * i));
  }
  const ValleyPlan plan = fill_parts(Instance(problem), kFillRules, 0, {});
  Solution solution;
  for (const std::int64_t offset : plan.offsets) solution.offsets.push_back({offset});
  solution.height = {plan.height};
  EXPECT_TRUE(validate(problem, solution).ok());
}

}  // namespace
}  // namespace ebbtide
