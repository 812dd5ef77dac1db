#include "dryrun/core/contents.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <vector>

namespace ebbtide::dryrun {
namespace {

constexpr std::uintptr_t kBase = 4096;

TEST(Contents, UnmarkedMemoryIsNotComputed) {
  const Contents contents;
  EXPECT_EQ(contents.least(kBase, 100), Content::kNotComputed);
}

TEST(Contents, LeastComputedByteDecides) {
  Contents contents;
  contents.mark(kBase, 100, Content::kComputed);
  contents.mark(kBase + 40, 10, Content::kDerived);
  EXPECT_EQ(contents.least(kBase, 40), Content::kComputed);
  EXPECT_EQ(contents.least(kBase + 30, 20), Content::kDerived);
  EXPECT_EQ(contents.least(kBase + 50, 51), Content::kNotComputed);
}

TEST(Contents, EmptyRangesAreComputedAndMarkNothing) {
  Contents contents;
  contents.mark(kBase, 0, Content::kComputed);
  EXPECT_EQ(contents.segment_count(), 0U);
  EXPECT_EQ(contents.least(kBase, 0), Content::kComputed);
}

TEST(Contents, NeighboursOfOneKindMerge) {
  Contents contents;
  contents.mark(kBase, 10, Content::kComputed);
  contents.mark(kBase + 20, 10, Content::kComputed);
  contents.mark(kBase + 10, 10, Content::kComputed);
  EXPECT_EQ(contents.segment_count(), 1U);
}

TEST(Contents, ForgettingTheMiddleSplits) {
  Contents contents;
  contents.mark(kBase, 30, Content::kComputed);
  contents.mark(kBase + 10, 10, Content::kNotComputed);
  std::vector<std::pair<std::uintptr_t, Content>> seen;
  contents.for_each(kBase, 30, [&](std::uintptr_t begin, std::size_t size, Content content) {
    EXPECT_EQ(size, 10U);
    seen.emplace_back(begin - kBase, content);
  });
  const std::vector<std::pair<std::uintptr_t, Content>> expected{
      {0, Content::kComputed}, {10, Content::kNotComputed}, {20, Content::kComputed}};
  EXPECT_EQ(seen, expected);
}

// Random marks against one byte per byte.
TEST(Contents, RandomMarksAgreeWithANaiveModel) {
  constexpr std::size_t kBytes = 200;
  std::mt19937 random(7);
  Contents contents;
  std::array<Content, kBytes> model{};
  for (int step = 0; step < 5000; ++step) {
    const std::size_t begin = random() % kBytes;
    const std::size_t size = random() % (kBytes - begin + 1);
    const auto content = static_cast<Content>(random() % 3);
    contents.mark(kBase + begin, size, content);
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(begin), size, content);
    ASSERT_TRUE(contents.is_valid()) << "after step " << step;
    std::size_t at = 0;
    contents.for_each(kBase, kBytes, [&](std::uintptr_t start, std::size_t length, Content seen) {
      ASSERT_EQ(start, kBase + at);
      for (std::size_t i = 0; i < length; ++i) ASSERT_EQ(model[at + i], seen) << "step " << step;
      at += length;
    });
    ASSERT_EQ(at, kBytes);
  }
}

}  // namespace
}  // namespace ebbtide::dryrun
