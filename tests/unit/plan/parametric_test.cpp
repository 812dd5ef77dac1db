#include "allocator/plan/parametric.h"

#include <gtest/gtest.h>

#include <random>

#include "allocator/plan/validator.h"
#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

using reference::buffer;

std::vector<Bytes> sizes_of(const Problem& problem) {
  std::vector<Bytes> sizes;
  for (const Buffer& b : problem.buffers) sizes.push_back(b.size);
  return sizes;
}

TEST(Parametric, SizesLieOnTheLineThroughTheNearestObservedLengths) {
  const auto sizes =
      ParametricSizes::fit({{200, {{3000}}}, {100, {{2000}}}, {300, {{3000}}}}, Bytes{10}).value();
  EXPECT_EQ(sizes.size_at(0, 100), Bytes{2000});
  EXPECT_EQ(sizes.size_at(0, 150), Bytes{2500});
  EXPECT_EQ(sizes.size_at(0, 151), Bytes{2510});
  EXPECT_EQ(sizes.size_at(0, 50), Bytes{1500});
  EXPECT_EQ(sizes.size_at(0, 250), Bytes{3000});
  EXPECT_EQ(sizes.size_at(0, 5000), Bytes{3000});
}

TEST(Parametric, RefusesWhatIsNotTwoLengthsOfTheSameBuffers) {
  EXPECT_FALSE(ParametricSizes::fit({{100, {{1}}}}).ok());
  EXPECT_FALSE(ParametricSizes::fit({{100, {{1}}}, {100, {{2}}}}).ok());
  EXPECT_FALSE(ParametricSizes::fit({{100, {{1}}}, {200, {{2}, {3}}}}).ok());
  EXPECT_FALSE(ParametricSizes::fit({{0, {{1}}}, {200, {{2}}}}).ok());
  EXPECT_FALSE(ParametricSizes::fit({{100, {{-1}}}, {200, {{2}}}}).ok());
}

TEST(Parametric, TheLargestSizeUpToALengthIsTheLargestOfAll) {
  std::mt19937_64 random(51);
  for (int i = 0; i < 50; ++i) {
    std::vector<ObservedLength> observed;
    for (std::int64_t length = 3; length < 40;
         length += 1 + static_cast<std::int64_t>(random() % 12)) {
      observed.push_back({length, {{static_cast<std::int64_t>(random() % 5000)}}});
    }
    if (observed.size() < 2) continue;
    const auto sizes = ParametricSizes::fit(observed, Bytes{64}).value();
    Bytes largest{0};
    for (std::int64_t length = 1; length < 60; ++length) {
      largest = std::max(largest, sizes.size_at(0, length));
      EXPECT_EQ(sizes.size_up_to(0, length), largest) << "length " << length;
    }
  }
}

TEST(Parametric, OnePlanIsValidForEveryLengthUpToItsOwn) {
  std::mt19937_64 random(52);
  const Problem seen = reference::random_problem(random, {.buffers = 40});
  Problem longer = seen;
  for (Buffer& b : longer.buffers)
    b.size.value = static_cast<std::int64_t>(random() % 9000);  // some shrink
  const auto sizes =
      ParametricSizes::fit({{100, sizes_of(seen)}, {200, sizes_of(longer)}}, Bytes{1}).value();
  AnytimeOptions options;
  options.time_limit = 0.05;
  const auto plan = solve_anytime(problem_up_to(seen, sizes, 400).value(), options).value();
  for (std::int64_t length = 1; length <= 400; ++length) {
    Problem at = seen;
    for (std::size_t i = 0; i < at.buffers.size(); ++i)
      at.buffers[i].size = sizes.size_at(i, length);
    const Status valid = validate(at, plan.solution);
    ASSERT_TRUE(valid.ok()) << length << ": " << valid.error().message;
  }
}

TEST(Parametric, TheLongestLengthFillsTheCapacityAndOneMoreIsProvedNotTo) {
  // One buffer of 1000 bytes throughout, and two of 10 bytes a token that meet.
  const Problem problem{{buffer(1000, 0, 9), buffer(0, 0, 5), buffer(0, 4, 9)}};
  const auto sizes =
      ParametricSizes::fit({{10, {{1000}, {100}, {100}}}, {20, {{1000}, {200}, {200}}}}, Bytes{1})
          .value();
  const auto found = longest_length(problem, sizes, Bytes{1000 + 20 * 777 + 19}, 100'000);
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found.value().length, 777);
  EXPECT_TRUE(found.value().is_proved);
  EXPECT_TRUE(
      validate(problem_up_to(problem, sizes, 777).value(), found.value().plan.solution).ok());
  EXPECT_EQ(longest_length(problem, sizes, Bytes{1 << 20}, 500).value().length, 500);
  const auto none = longest_length(problem, sizes, Bytes{999}, 500);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kInfeasible);
}

}  // namespace
}  // namespace ebbtide
