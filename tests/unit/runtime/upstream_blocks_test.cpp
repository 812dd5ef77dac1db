#include "allocator/runtime/upstream_blocks.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

namespace ebbtide {
namespace {

const void* address_of(std::uint64_t number) { return reinterpret_cast<const void*>(number * 512); }

UpstreamBlock block_of(std::int64_t size, std::uint32_t round = 0) {
  return {{Bytes{size}, Origin{round, 0}, RootId{}, -1}, false};
}

std::map<const void*, std::int64_t> contents(UpstreamBlocks& blocks) {
  std::map<const void*, std::int64_t> found;
  blocks.for_each([&](const void* address, const UpstreamBlock& block) { found[address] = block.size.value; });
  return found;
}

TEST(UpstreamBlocks, HoldWhatWasPutInAndNotTakenOut) {
  UpstreamBlocks blocks;
  std::map<const void*, std::int64_t> expected;
  std::mt19937_64 random(3);
  for (int i = 0; i < 20'000; ++i) {
    const void* address = address_of(1 + random() % 700);  // few, so that they meet
    if (random() % 2 == 0) {
      expected[address] = i + 1;
      blocks.insert(address, block_of(i + 1));
      continue;
    }
    const std::optional<UpstreamBlock> taken = blocks.take(address);
    ASSERT_EQ(taken.has_value(), expected.contains(address));
    if (taken) {
      EXPECT_EQ(taken->size, Bytes{expected[address]});
    }
    expected.erase(address);
  }
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(contents(blocks), expected);
}

TEST(UpstreamBlocks, KeepWhatIsRecordedApartAndShowBoth) {
  UpstreamBlocks blocks;
  blocks.insert(address_of(1), block_of(10));
  blocks.insert_recorded(address_of(2), block_of(20, 7));
  EXPECT_FALSE(blocks.take(address_of(2)));
  EXPECT_FALSE(blocks.take_recorded(address_of(1)));
  EXPECT_EQ(contents(blocks), (std::map<const void*, std::int64_t>{{address_of(1), 10}, {address_of(2), 20}}));
  EXPECT_EQ(blocks.take(address_of(1))->size, Bytes{10});
  EXPECT_EQ(blocks.take_recorded(address_of(2))->origin.round, 7U);
  EXPECT_TRUE(contents(blocks).empty());
}

TEST(UpstreamBlocks, ThreadsDoNotDisturbOneAnother) {
  UpstreamBlocks blocks;
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&blocks, t] {
      for (std::uint64_t i = 1; i <= 2'000; ++i) {
        blocks.insert(address_of(4 * i + t), block_of(static_cast<std::int64_t>(i)));
        if (i % 2 != 0) continue;
        EXPECT_TRUE(blocks.take(address_of(4 * (i - 1) + t)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(contents(blocks).size(), 4'000U);
}

}  // namespace
}  // namespace ebbtide
