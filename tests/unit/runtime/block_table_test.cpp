#include "allocator/runtime/block_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace ebbtide {
namespace {

using Range = Span;

Block of_size(std::int64_t size, std::uint32_t request = 0) { return {Bytes{size}, {1, request}, {}, -1, {}}; }

// One entry per byte: 0 is free, otherwise the number of the block that holds it.
class NaiveTable {
 public:
  explicit NaiveTable(std::size_t bytes) : holder_(bytes) {}

  bool is_free(std::int64_t offset, std::int64_t size) const {
    return std::all_of(at(offset), at(offset + size), [](std::uint32_t holder) { return holder == 0; });
  }
  void fill(std::int64_t offset, std::int64_t size, std::uint32_t holder) {
    for (std::int64_t i = offset; i < offset + size; ++i) holder_[static_cast<std::size_t>(i)] = holder;
  }
  std::uint32_t lowest_holder(std::int64_t offset, std::int64_t size) const {
    const auto found = std::find_if(at(offset), at(offset + size), [](std::uint32_t holder) { return holder != 0; });
    return found == at(offset + size) ? 0 : *found;
  }
  std::int64_t live() const {
    return std::count_if(holder_.begin(), holder_.end(), [](std::uint32_t holder) { return holder != 0; });
  }
  std::int64_t highest_end() const {
    const auto last = std::find_if(holder_.rbegin(), holder_.rend(), [](std::uint32_t holder) { return holder != 0; });
    return holder_.rend() - last;
  }
  std::optional<Offset> lowest_gap(std::int64_t size, std::int64_t alignment, std::int64_t end,
                                   const std::vector<Range>& avoid) const {
    for (std::int64_t place = 0; place + size <= end; place += alignment) {
      const bool in_way = std::any_of(avoid.begin(), avoid.end(), [&](const Range& range) {
        return range.begin.value < place + size && place < range.end.value;
      });
      if (!in_way && is_free(place, size)) return Offset{place};
    }
    return std::nullopt;
  }

 private:
  std::vector<std::uint32_t>::const_iterator at(std::int64_t offset) const { return holder_.begin() + offset; }

  std::vector<std::uint32_t> holder_;
};

std::vector<Range> random_ranges(std::mt19937& random, std::int64_t end) {
  std::vector<Range> ranges;
  for (std::int64_t begin = static_cast<std::int64_t>(random() % 64); begin < end;) {
    const auto size = static_cast<std::int64_t>(1 + random() % 24);
    ranges.push_back({Offset{begin}, Offset{begin + size}});
    begin += size + 1 + static_cast<std::int64_t>(random() % 96);
  }
  return ranges;
}

TEST(BlockTable, AgreesWithOneEntryPerByte) {
  constexpr std::int64_t kEnd = 256;
  std::mt19937 random(3);
  BlockTable table;
  NaiveTable naive(kEnd + 64);
  std::uint32_t serial = 0;
  for (int step = 0; step < 200'000; ++step) {
    const auto offset = static_cast<std::int64_t>(random() % kEnd);
    const auto size = static_cast<std::int64_t>(1 + random() % 24);
    ASSERT_EQ(table.is_free(Offset{offset}, Bytes{size}), naive.is_free(offset, size));
    const Block* holder = table.holder(Offset{offset}, Bytes{size});
    ASSERT_EQ(holder == nullptr ? 0 : holder->origin.request, naive.lowest_holder(offset, size));
    const bool is_free = holder == nullptr;
    ASSERT_EQ(table.try_insert(Offset{offset}, of_size(size, ++serial)), is_free);
    if (is_free) {
      naive.fill(offset, size, serial);
    } else if (random() % 2 == 0) {
      const Block* erased = table.erase(Offset{offset});
      const bool begins_here = erased != nullptr;
      ASSERT_EQ(begins_here, naive.lowest_holder(offset, 1) != 0 &&
                                 (offset == 0 || naive.lowest_holder(offset - 1, 1) != naive.lowest_holder(offset, 1)));
      if (begins_here) naive.fill(offset, erased->size.value, 0);
    }
    ASSERT_TRUE(table.is_valid());
    ASSERT_EQ(table.live_bytes().value, naive.live());
    ASSERT_EQ(table.highest_end().value, naive.highest_end());
    if (step % 16 != 0) continue;
    const std::vector<Range> avoid = random_ranges(random, kEnd);
    const std::int64_t alignment = std::int64_t{1} << random() % 5;
    const auto end = static_cast<std::int64_t>(random() % (kEnd + 1));
    ASSERT_EQ(table.lowest_gap(Bytes{size}, Bytes{alignment}, Offset{end}, avoid),
              naive.lowest_gap(size, alignment, end, avoid))
        << "step " << step;
  }
}

TEST(BlockTable, NeighboursMayTouch) {
  BlockTable table;
  table.insert(Offset{0}, of_size(512));
  EXPECT_TRUE(table.is_free(Offset{512}, Bytes{512}));
  table.insert(Offset{512}, of_size(512));
  EXPECT_FALSE(table.is_free(Offset{1023}, Bytes{1}));
  EXPECT_TRUE(table.is_free(Offset{1024}, Bytes{1}));
  EXPECT_EQ(table.count(), 2U);
}

TEST(BlockTable, FindsABlockByItsFirstByteOnly) {
  BlockTable table;
  table.insert(Offset{1024}, of_size(512, 9));
  ASSERT_NE(table.find(Offset{1024}), nullptr);
  EXPECT_EQ(table.find(Offset{1024})->origin.request, 9U);
  EXPECT_EQ(table.find(Offset{1025}), nullptr);
  EXPECT_EQ(table.erase(Offset{1025}), nullptr);
  EXPECT_EQ(table.count(), 1U);
}

TEST(BlockTable, GapsStayClearOfWhatThePlanNeeds) {
  BlockTable table;
  table.insert(Offset{0}, of_size(1000));
  const std::vector<Range> avoid{{Offset{1024}, Offset{2048}}, {Offset{3072}, Offset{3584}}};
  EXPECT_EQ(table.lowest_gap(Bytes{1024}, Bytes{512}, Offset{8192}, avoid), Offset{2048});
  EXPECT_EQ(table.lowest_gap(Bytes{1025}, Bytes{512}, Offset{8192}, avoid), Offset{3584});
  EXPECT_EQ(table.lowest_gap(Bytes{1025}, Bytes{512}, Offset{3584 + 1024}, avoid), std::nullopt);
  EXPECT_EQ(table.lowest_gap(Bytes{512}, Bytes{512}, Offset{8192}, {}), Offset{1024});
}

TEST(BlockTable, TheTightestPlaceLeavesTheLeastRoomOverAndElseIsOnTop) {
  BlockTable table;
  EXPECT_EQ(table.tightest_place(Bytes{512}, Bytes{512}), Offset{0});
  table.insert(Offset{2048}, of_size(100));
  table.insert(Offset{3584}, of_size(512));
  EXPECT_EQ(table.tightest_place(Bytes{1024}, Bytes{512}), Offset{2560}) << "of 2048 bytes and of 1024";
  EXPECT_EQ(table.tightest_place(Bytes{1025}, Bytes{512}), Offset{0});
  const std::vector<Range> avoid{{Offset{0}, Offset{512}}, {Offset{1 << 20}, Offset{(1 << 20) + 512}}};
  EXPECT_EQ(table.tightest_place(Bytes{1536}, Bytes{512}, avoid), Offset{512}) << "what is left beside a range";
  EXPECT_EQ(table.tightest_place(Bytes{2 << 20}, Bytes{512}, avoid), Offset{(1 << 20) + 512}) << "above all of them";
  EXPECT_EQ(table.tightest_place(Bytes{2049}, Bytes{512}), Offset{4096});
}

TEST(BlockTableDeathTest, TwoBlocksNeverShareAByte) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  BlockTable table;
  table.insert(Offset{512}, of_size(512));
  EXPECT_DEATH(table.insert(Offset{0}, of_size(513)), "ebbtide bug");
  EXPECT_DEATH(table.insert(Offset{1023}, of_size(1)), "ebbtide bug");
  EXPECT_DEATH(table.insert(Offset{512}, of_size(512)), "ebbtide bug");
  EXPECT_DEATH(table.insert(Offset{4096}, of_size(0)), "ebbtide bug");
}

}  // namespace
}  // namespace ebbtide
