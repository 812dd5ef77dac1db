#include "allocator/runtime/arena.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fakes/fake_fences.h"
#include "tests/fakes/fake_range.h"

namespace ebbtide {
namespace {

using Log = std::vector<std::string>;
constexpr StreamId kHome{0};

Block owned_block(std::int64_t size) { return {Bytes{size}, {1, 0}, {}, -1, {}}; }

class ArenaTest : public testing::Test {
 protected:
  // A block at `offset` that other streams used, freed again.
  void leave_behind(std::int64_t offset, std::int64_t size, const std::vector<StreamId>& used_on) {
    arena_.place(Offset{offset}, owned_block(size), kHome);
    arena_.find(Offset{offset})->used_on = used_on;
    EXPECT_NE(arena_.release(Offset{offset}), nullptr);
  }

  fakes::FakeFences fences_;
  Arena arena_{std::make_unique<fakes::FakeRange>(), fences_};
};

TEST_F(ArenaTest, ABlockOfItsOwnStreamLeavesNothingToWaitFor) {
  leave_behind(0, 4096, {});
  arena_.place(Offset{0}, owned_block(4096), kHome);
  EXPECT_EQ(fences_.log(), Log{});
}

TEST_F(ArenaTest, WhoeverReusesAByteWaitsForEveryStreamThatUsedIt) {
  leave_behind(0, 4096, {StreamId{5}, StreamId{6}});
  EXPECT_EQ(fences_.log(), (Log{"record 1 on 5", "record 2 on 6"}));
  arena_.place(Offset{3584}, owned_block(4096), StreamId{3});
  EXPECT_EQ(fences_.log(), (Log{"record 1 on 5", "record 2 on 6", "wait 1 on 3", "wait 2 on 3"}));
  EXPECT_EQ(fences_.outstanding(), 0U);
}

// What a place is used again for must not bring back what its last block said.
TEST_F(ArenaTest, ANewBlockIsUsedOnNoOtherStream) {
  leave_behind(0, 4096, {StreamId{5}});
  leave_behind(0, 4096, {});
  EXPECT_EQ(fences_.log(), (Log{"record 1 on 5", "wait 1 on 0"}));
  arena_.place(Offset{0}, owned_block(4096), kHome);
  EXPECT_TRUE(arena_.find(Offset{0})->used_on.empty());
}

TEST_F(ArenaTest, NeighboursDoNotWait) {
  leave_behind(4096, 4096, {StreamId{5}});
  arena_.place(Offset{0}, owned_block(4096), kHome);
  arena_.place(Offset{8192}, owned_block(4096), kHome);
  EXPECT_EQ(fences_.log(), Log{"record 1 on 5"});
  arena_.place(Offset{4096}, owned_block(1), kHome);
  EXPECT_EQ(fences_.log(), (Log{"record 1 on 5", "wait 1 on 0"}));
}

TEST_F(ArenaTest, OnlyTheEventsOfTheBytesReusedAreWaitedFor) {
  leave_behind(0, 4096, {StreamId{5}});
  leave_behind(8192, 4096, {StreamId{6}});
  arena_.place(Offset{8192}, owned_block(512), kHome);
  EXPECT_EQ(fences_.log(), (Log{"record 1 on 5", "record 2 on 6", "wait 2 on 0"}));
  EXPECT_EQ(fences_.outstanding(), 1U);
}

// The device orders the successor behind the wait, and everything behind the successor.
TEST_F(ArenaTest, AnEventIsWaitedForOnce) {
  leave_behind(0, 4096, {StreamId{5}});
  arena_.place(Offset{0}, owned_block(512), kHome);
  arena_.place(Offset{512}, owned_block(512), kHome);
  EXPECT_EQ(fences_.log(), (Log{"record 1 on 5", "wait 1 on 0"}));
  EXPECT_EQ(fences_.misuses(), 0);
}

TEST_F(ArenaTest, ReleasingWhatIsNoBlockRecordsNothing) {
  leave_behind(0, 4096, {});
  EXPECT_EQ(arena_.release(Offset{0}), nullptr);
  EXPECT_EQ(fences_.log(), Log{});
}

TEST_F(ArenaTest, TheExtentIsWhatWasAdopted) {
  EXPECT_FALSE(arena_.contains(arena_.range().base()));
  ASSERT_TRUE(arena_.grow_to(Bytes{8192}).ok());
  EXPECT_EQ(arena_.extent(), Bytes{});
  arena_.adopt_extent();
  EXPECT_EQ(arena_.extent(), Bytes{8192});
  EXPECT_TRUE(arena_.contains(arena_.address(Offset{8191})));
  EXPECT_FALSE(arena_.contains(arena_.address(Offset{8192})));
  EXPECT_FALSE(arena_.contains(arena_.address(Offset{-1})));
  EXPECT_EQ(arena_.offset_of(arena_.address(Offset{1024})), Offset{1024});
  arena_.shrink_to(Bytes{4096});
  arena_.adopt_extent();
  EXPECT_EQ(arena_.extent(), Bytes{4096});
  EXPECT_EQ(arena_.peak_extent(), Bytes{8192});
}

TEST_F(ArenaTest, WhatIsIdleBetweenBlocksIsWithdrawnTheLargestFirst) {
  ASSERT_TRUE(arena_.grow_to(Bytes{16384}).ok());
  arena_.adopt_extent();
  for (const std::int64_t offset : {1024, 4096, 8192}) arena_.place(Offset{offset}, owned_block(512), kHome);
  const std::vector<Span> idle = arena_.withdraw_idle();
  EXPECT_EQ(idle, (std::vector<Span>{{Offset{4608}, Offset{8192}}, {Offset{1536}, Offset{4096}}, {Offset{0}, Offset{1024}}}));
  EXPECT_FALSE(arena_.try_place(Offset{0}, owned_block(512), kHome));
  EXPECT_EQ(arena_.lowest_gap(Bytes{512}, Bytes{512}, {}), Offset{8704}) << "above the blocks";
  EXPECT_EQ(arena_.tightest_place(Bytes{512}, Bytes{512}), Offset{8704});
  EXPECT_EQ(arena_.tightest_place(Bytes{3584}, Bytes{512}), Offset{8704}) << "that is left";
  EXPECT_EQ(arena_.tightest_place(Bytes{16384}, Bytes{512}), Offset{8704}) << "that fits nowhere else";
  arena_.release_inside(idle, Bytes{3584});
  arena_.adopt_extent();
  EXPECT_EQ(arena_.held(), Bytes{16384 - 3584});
  EXPECT_FALSE(arena_.is_backed(Offset{4096}, Bytes{1024}));
  EXPECT_TRUE(arena_.is_backed(Offset{0}, Bytes{4096})) << "as much as was wanted, and no more";
  EXPECT_EQ(arena_.withdraw_idle().front(), (Span{Offset{1536}, Offset{4096}})) << "what is a hole already is not idle";
  EXPECT_TRUE(arena_.is_valid());
}

TEST_F(ArenaTest, GapsEndAtTheExtent) {
  ASSERT_TRUE(arena_.grow_to(Bytes{8192}).ok());
  arena_.adopt_extent();
  arena_.place(Offset{0}, owned_block(4096), kHome);
  EXPECT_EQ(arena_.lowest_gap(Bytes{4096}, Bytes{512}, {}), Offset{4096});
  EXPECT_EQ(arena_.lowest_gap(Bytes{4097}, Bytes{512}, {}), std::nullopt);
  EXPECT_TRUE(arena_.is_valid());
}

}  // namespace
}  // namespace ebbtide
