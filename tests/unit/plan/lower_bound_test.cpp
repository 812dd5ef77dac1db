#include "allocator/plan/lower_bound.h"

#include <gtest/gtest.h>

#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;

TEST(MaxLoad, OfNothingIsZero) {
  EXPECT_EQ(max_load({}), Bytes{0});
  EXPECT_FALSE(peak_load({}).tick);
}

TEST(MaxLoad, TouchingLifetimesDoNotAdd) {
  EXPECT_EQ(max_load({{buffer(5, 0, 3), buffer(7, 3, 6)}}), Bytes{7});
}

TEST(MaxLoad, NamesTheFirstTickOfThePeak) {
  const Problem problem{{buffer(5, 0, 9), buffer(7, 3, 6), buffer(7, 6, 9)}};
  EXPECT_EQ(peak_load(problem).load, Bytes{12});
  EXPECT_EQ(peak_load(problem).tick, Tick{3});
}

TEST(MaxLoad, AWrappingBufferCountsOnceAtEachTick) {
  Problem problem{{wrapping(Bytes{10}, Tick{8}, Tick{2}, Tick{10}), buffer(4, 1, 9)}};
  EXPECT_EQ(max_load(problem), Bytes{14});
  problem.buffers[1] = buffer(4, 2, 8);
  EXPECT_EQ(max_load(problem), Bytes{10});
}

TEST(MaxLoad, EqualsTheLargestSumOverEveryTick) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 50; ++round) {
    const Problem problem = reference::random_problem(random, {.buffers = 30});
    std::int64_t largest = 0;
    for (std::int64_t tick = 0; tick < 40; ++tick) {
      std::int64_t load = 0;
      const Buffer moment = buffer(1, tick, tick + 1);
      for (const Buffer& other : problem.buffers) {
        if (reference::live_together(moment, other)) load += other.size.value;
      }
      largest = std::max(largest, load);
    }
    EXPECT_EQ(max_load(problem), Bytes{largest});
  }
}

}  // namespace
}  // namespace ebbtide
