#include "allocator/runtime/extent_index.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <iterator>
#include <map>
#include <random>

namespace ebbtide {
namespace {

constexpr std::int64_t kStep = 10;  // a range is up to so long, and begins at a multiple

// The index beside a map of the same ranges, in which a byte of the map is so many of the index: with few of them many ranges
// look alike to its keys, with many none do.
class Both {
 public:
  explicit Both(std::int64_t scale = 1) : scale_(scale) {}

  void insert(std::int64_t begin, std::int64_t size, std::uint32_t holder) {
    EXPECT_TRUE(index_.try_insert(at(begin), at(begin + size), holder));
    map_[begin] = {begin + size, holder};
  }
  void erase(std::int64_t begin) {
    EXPECT_EQ(index_.erase(at(begin)), map_.at(begin).holder);
    map_.erase(begin);
  }
  // What is in the way: refused, and what begins nowhere is not erased.
  void expect_refused(std::int64_t begin, std::int64_t size) {
    const auto next = map_.lower_bound(begin);
    const bool is_above = next != map_.end() && next->first < begin + size;
    const bool is_below = next != map_.begin() && std::prev(next)->second.end > begin;
    if (is_above || is_below) {
      EXPECT_FALSE(index_.try_insert(at(begin), at(begin + size), 0));
    }
    if (!has(begin)) {
      EXPECT_EQ(index_.erase(at(begin)), ExtentIndex::kNobody);
    }
  }
  bool has(std::int64_t begin) const { return map_.contains(begin); }
  std::size_t count() const { return map_.size(); }

  void expect_same_neighbours(std::int64_t offset) const {
    const auto next = map_.lower_bound(offset);
    const ExtentIndex::Place place = index_.place_of(at(offset));
    expect_same(index_.at(place), next == map_.end() ? nullptr : &*next);
    expect_same(index_.before(place), next == map_.begin() ? nullptr : &*std::prev(next));
  }
  void expect_same_order() const {
    auto expected = map_.begin();
    for (const ExtentIndex::Extent& extent : index_) {
      ASSERT_NE(expected, map_.end());
      expect_same(&extent, &*expected++);
    }
    EXPECT_EQ(expected, map_.end());
    expect_same(index_.last(), map_.empty() ? nullptr : &*map_.rbegin());
  }

 private:
  struct Rest {
    std::int64_t end = 0;
    std::uint32_t holder = 0;
  };
  Offset at(std::int64_t byte) const { return Offset{byte * scale_}; }
  void expect_same(const ExtentIndex::Extent* found, const std::pair<const std::int64_t, Rest>* expected) const {
    ASSERT_EQ(found == nullptr, expected == nullptr);
    if (found == nullptr) return;
    EXPECT_EQ(found->begin, at(expected->first));
    EXPECT_EQ(found->end, at(expected->second.end));
    EXPECT_EQ(found->holder, expected->second.holder);
  }

  const std::int64_t scale_;
  ExtentIndex index_;
  std::map<std::int64_t, Rest> map_;
};

TEST(ExtentIndex, AnEmptyOneHasNoRange) {
  Both both;
  both.expect_same_neighbours(0);
  both.expect_same_order();
}

// It grows to many chunks, shrinks to nothing, and grows again from what it kept.
void expect_what_a_map_finds(std::int64_t scale) {
  std::mt19937 random(3);
  Both both(scale);
  for (const std::uint32_t places : {2000U, 1U, 300U}) {
    for (std::uint32_t i = 0; i < 3 * places; ++i) {
      const std::int64_t begin = kStep * static_cast<std::int64_t>(random() % places);
      if (both.has(begin) && i > 2 * places) both.erase(begin);
      if (!both.has(begin) && i <= 2 * places) both.insert(begin, 1 + static_cast<std::int64_t>(random() % kStep), i);
      const auto anywhere = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(kStep * places + kStep));
      both.expect_same_neighbours(anywhere);
      both.expect_refused(anywhere, 1 + static_cast<std::int64_t>(random() % (2 * kStep)));
    }
    both.expect_same_order();
    for (std::int64_t begin = 0; begin < kStep * places; begin += kStep) {
      if (both.has(begin)) both.erase(begin);
      if (begin % 97 == 0) both.expect_same_order();
    }
    ASSERT_EQ(both.count(), 0U);
    both.expect_same_order();
  }
}

TEST(ExtentIndex, FindsWhatAMapFindsAmongSmallRanges) { expect_what_a_map_finds(1); }
TEST(ExtentIndex, FindsWhatAMapFindsAmongLargeRanges) { expect_what_a_map_finds(std::int64_t{1} << 20); }

TEST(ExtentIndex, RangesThatComeInOrderAndGoInOrderAreFound) {
  Both both;
  for (std::int64_t i = 0; i < 1000; ++i) both.insert(i * kStep, kStep, 0);
  for (std::int64_t i = -1; i > -1000; --i) both.insert(i * kStep, kStep, 1);
  both.expect_same_order();
  for (std::int64_t i = -999; i < 1000; ++i) {
    both.expect_same_neighbours(i * kStep);
    both.erase(i * kStep);
    both.expect_same_neighbours(i * kStep);
  }
  both.expect_same_order();
}

}  // namespace
}  // namespace ebbtide
