#include "allocator/plan/valley_fill.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "allocator/plan/contained_index.h"
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
    const CompactProblem compacted = compact(problem);
    const Sections sections(compacted);
    for (const FillRule rule : kFillRules) {
      const ValleyPlan plan = fill_valleys(compacted, sections, fill_order(compacted, rule));
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
  const Problem problem = fakes::training_problem({.layers = 200});
  const CompactProblem compacted = compact(problem);
  const Sections sections(compacted);
  const ValleyPlan plan =
      fill_valleys(compacted, sections, fill_order(compacted, FillRule::kCrowdWidth));
  EXPECT_EQ(plan.height, sections.max_load());
}

}  // namespace
}  // namespace ebbtide
