#include "allocator/plan/two_levels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "allocator/plan/anytime.h"
#include "allocator/plan/layers.h"
#include "allocator/plan/repeats.h"
#include "allocator/plan/solver.h"
#include "allocator/plan/validator.h"
#include "tests/fakes/training_problem.h"
#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;

std::vector<std::uint64_t> tokens_of(std::string_view text) { return {text.begin(), text.end()}; }

TEST(Repeats, AreFoundWithTheirPeriodAndNothingElseIs) {
  const auto repeats = find_repeats(tokens_of("xyzabcdefabcdefabcdefabqrst"));
  ASSERT_EQ(repeats.size(), 1U);
  EXPECT_EQ(repeats[0].first, 3U);
  EXPECT_EQ(repeats[0].period, 6U);
  EXPECT_EQ(repeats[0].length, 20U);
  EXPECT_TRUE(find_repeats(tokens_of("abcdefghijklmnopqrstuvwxyz")).empty());
  EXPECT_TRUE(find_repeats({}).empty());
}

TEST(Repeats, OfSeveralPeriodsAreTrueAndHaveNoTokenInCommon) {
  std::mt19937_64 random(51);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::uint64_t> tokens;
    for (int stretch = 0; stretch < 6; ++stretch) {
      const std::size_t period = 1 + random() % 9;
      const std::size_t begin = tokens.size();
      for (std::size_t k = 0; k < period; ++k) tokens.push_back(random() % 5);
      const std::size_t more = random() % 60;
      for (std::size_t k = 0; k < more; ++k) tokens.push_back(tokens[begin + k]);
    }
    std::size_t end = 0;
    for (const Repeat& repeat : find_repeats(tokens)) {
      ASSERT_GE(repeat.first, end);
      ASSERT_GE(repeat.length, 2 * repeat.period);
      end = repeat.first + repeat.length;
      ASSERT_LE(end, tokens.size());
      for (std::size_t k = repeat.first; k + repeat.period < end; ++k) {
        ASSERT_EQ(tokens[k], tokens[k + repeat.period]);
      }
    }
  }
}

// `count` passes through one random layer, 100 ticks each, of which every pass keeps a buffer until
// the passes come back in the opposite order, as a backward does.
Problem layered(std::mt19937_64& random, std::int64_t count, bool has_alignment) {
  constexpr std::int64_t kTicks = 100;
  const Problem layer = reference::random_problem(
      random, {.buffers = 20, .ticks = kTicks, .has_alignment = has_alignment});
  Problem problem;
  for (std::int64_t pass = 0; pass < count; ++pass) {
    for (Buffer one : layer.buffers) {
      LiveRanges moved;
      for (const Interval& i : one.live) {
        moved.push_back({i.birth + pass * kTicks, i.death + pass * kTicks});
      }
      one.live = moved;
      problem.buffers.push_back(std::move(one));
    }
    problem.buffers.push_back(buffer(1000, pass * kTicks + 50, (2 * count - pass) * kTicks));
  }
  return problem;
}

TEST(Layers, OfATrainingIterationAreFoundWithoutNames) {
  const Instance instance(fakes::training_problem({.layers = 24, .checkpointing = true}));
  const Layers found = find_layers(instance);
  // Forwards and backwards; the first or last of each may differ from the others.
  EXPECT_GE(found.layers.size(), 44U);
  EXPECT_LE(found.kinds, 6U);
  std::vector<int> seen(instance.buffers.count(), 0);
  for (const Layer& layer : found.layers) {
    for (const std::uint32_t b : layer.buffers) {
      EXPECT_EQ(seen[b]++, 0);
      const SectionRange range = instance.sections.of(b).front();
      EXPECT_GE(range.first, layer.sections.first);
      EXPECT_LE(range.last, layer.sections.last);
    }
  }
}

TEST(Layers, AreNotFoundWhereNothingComesAgain) {
  std::mt19937_64 random(52);
  Problem problem;
  for (std::int64_t i = 0; i < 1000; ++i) {
    const auto length = static_cast<std::int64_t>(1 + random() % 20);
    problem.buffers.push_back(
        buffer(static_cast<std::int64_t>(1 + random()) % 1000000, i, i + length));
  }
  EXPECT_TRUE(find_layers(Instance(problem)).layers.empty());
}

std::vector<std::int64_t> solved_flat(const Instance& whole) {
  SolveOptions options;
  options.is_single_level = true;
  options.improvement_steps = 0;
  std::vector<std::int64_t> offsets;
  for (const Offset offset : solve(whole, options).offsets) offsets.push_back(offset.value);
  return offsets;
}

TEST(TwoLevels, PlansOfRepeatedTracesAreValidAndNeverMadeWorse) {
  std::mt19937_64 random(53);
  int planned = 0;
  for (int i = 0; i < 20; ++i) {
    const Problem problem = layered(random, 4 + i, i % 2 == 0);
    const auto offsets = plan_by_levels(Instance(problem), solved_flat);
    if (offsets) {
      ++planned;
      Solution solution;
      for (std::size_t b = 0; b < offsets->size(); ++b) {
        solution.offsets.push_back({(*offsets)[b]});
        solution.height =
            std::max(solution.height, Bytes{(*offsets)[b] + problem.buffers[b].size.value});
      }
      ASSERT_TRUE(reference::is_valid(problem, solution));
    }
    SolveOptions options;
    options.improvement_steps = 0;
    const Bytes with = solve(problem, options).value().height;
    options.is_single_level = true;
    EXPECT_LE(with, solve(problem, options).value().height);
  }
  EXPECT_GE(planned, 14);
}

TEST(TwoLevels, EachKindOfLayerIsPlannedOnceAndTheRestIsSmall) {
  const Instance instance(fakes::training_problem({.layers = 100, .checkpointing = true}));
  std::size_t whole_buffers = 0;
  const auto offsets = plan_by_levels(instance, [&](const Instance& whole) {
    whole_buffers = whole.buffers.count();
    return solved_flat(whole);
  });
  ASSERT_TRUE(offsets);
  EXPECT_LT(whole_buffers, instance.buffers.count() / 5);
  std::int64_t height = 0;
  for (std::size_t b = 0; b < offsets->size(); ++b) {
    height = std::max(height, (*offsets)[b] + instance.buffers.sizes[b]);
  }
  EXPECT_EQ(height, instance.bound);
}

TEST(TwoLevels, FixedBuffersStayAndOnesThatTakeNoRoomAreAllowed) {
  std::mt19937_64 random(54);
  Problem problem = layered(random, 40, true);
  for (std::int64_t i = 0; i < 5; ++i) {
    Buffer fixed = buffer(i == 0 ? 0 : 64, i * 700, i * 700 + 400);
    fixed.fixed = Offset{1024 * i};
    problem.buffers.push_back(fixed);
  }
  const auto offsets = plan_by_levels(Instance(problem), solved_flat);
  ASSERT_TRUE(offsets);
  Solution solution;
  for (std::size_t b = 0; b < offsets->size(); ++b) {
    solution.offsets.push_back({(*offsets)[b]});
    solution.height =
        std::max(solution.height, Bytes{(*offsets)[b] + problem.buffers[b].size.value});
  }
  EXPECT_TRUE(validate(problem, solution).ok());
}

}  // namespace
}  // namespace ebbtide
