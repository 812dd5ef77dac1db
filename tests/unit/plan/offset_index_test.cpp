#include "allocator/plan/offset_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

namespace ebbtide {
namespace {

struct Entry {
  Span32 span;
  std::int64_t offset;
  std::int64_t size;
};

// The rule's offset by trying zero and every aligned end among the entries.
std::int64_t naive_find(const std::vector<Entry>& entries, const std::vector<Span32>& live,
                        std::int64_t size, std::int64_t alignment, FitRule rule) {
  std::vector<Entry> met;
  for (const Entry& entry : entries) {
    for (const Span32& span : live) {
      if (entry.span.birth < span.death && span.birth < entry.span.death) met.push_back(entry);
    }
  }
  std::vector<std::int64_t> places{0};
  for (const Entry& entry : met) places.push_back(align_up(entry.offset + entry.size, alignment));
  std::sort(places.begin(), places.end());
  const std::int64_t none = std::numeric_limits<std::int64_t>::max();
  std::int64_t best = -1;
  std::int64_t best_room = none;
  for (const std::int64_t place : places) {
    std::int64_t room = none;  // to the next entry above
    for (const Entry& entry : met) {
      if (entry.offset + entry.size > place) room = std::min(room, entry.offset - place);
    }
    if (room < size) continue;
    if (rule == FitRule::kFirst) return place;
    if (best < 0 || room < best_room) {
      best = place;
      best_room = room;
    }
  }
  return best;
}

class OffsetIndexAgainstNaive : public testing::TestWithParam<FitRule> {};

TEST_P(OffsetIndexAgainstNaive, FindsTheSameOffsets) {
  std::mt19937_64 random(3);
  OffsetIndex index;
  for (int round = 0; round < 6; ++round) {
    index.clear();
    std::vector<Entry> entries;
    for (int i = 0; i < 400; ++i) {
      std::vector<Span32> live;
      const auto birth = static_cast<std::int32_t>(random() % 50);
      live.push_back({birth, birth + 1 + static_cast<std::int32_t>(random() % 20)});
      if (random() % 4 == 0) live.push_back({80, 80 + static_cast<std::int32_t>(random() % 9) + 1});
      const auto size = static_cast<std::int64_t>(random() % 60) + 1;
      const std::int64_t alignment = std::int64_t{1} + static_cast<std::int64_t>(random() % 8);
      const std::int64_t offset = index.find(live, size, alignment, GetParam());
      ASSERT_EQ(offset, naive_find(entries, live, size, alignment, GetParam())) << "entry " << i;
      index.insert(live, offset, size);
      for (const Span32& span : live) entries.push_back({span, offset, size});
      ASSERT_TRUE(index.is_valid());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, OffsetIndexAgainstNaive,
                         testing::Values(FitRule::kFirst, FitRule::kBest));

}  // namespace
}  // namespace ebbtide
