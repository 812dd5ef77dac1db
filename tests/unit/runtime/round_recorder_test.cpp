#include "allocator/runtime/round_recorder.h"

#include <gtest/gtest.h>

#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using samples::mib;

// A recorder with an arena and upstream blocks, which the engine owns in life.
class RoundRecorderTest : public testing::Test {
 protected:
  Block born(Bytes size) { return {size, recorder_.add(size, -1), {}, -1, {}}; }
  Round next(RoundKind kind = RoundKind::kForward, std::uint32_t source = 1) {
    return recorder_.next(kind, source, arena_, upstream_, book_);
  }

  RoundRecorder recorder_;
  BlockTable arena_;
  UpstreamBlocks upstream_;
  ProgramBook book_;
};

TEST_F(RoundRecorderTest, WhatComesBeforeTheFirstMarkIsThePrologue) {
  EXPECT_TRUE(recorder_.is_prologue());
  const Round prologue = next(RoundKind::kForward, 3);
  EXPECT_EQ(prologue.serial, 0U);
  EXPECT_FALSE(recorder_.is_prologue());
  EXPECT_EQ(recorder_.round().serial, 1U);
  EXPECT_EQ(recorder_.round().kind, RoundKind::kForward);
  EXPECT_EQ(recorder_.round().source, 3U);
}

TEST_F(RoundRecorderTest, DeathsAreTheNumberOfRequestsUntilThen) {
  next();
  const Block a = born(mib(1));
  const Block b = born(mib(2));
  recorder_.end(a);
  const Block c = born(mib(3));
  recorder_.end(c);
  const Round round = next();
  ASSERT_EQ(round.requests.size(), 3U);
  EXPECT_EQ(round.requests[0].death, Tick{2});
  EXPECT_EQ(round.requests[1].death, kAlive);
  EXPECT_EQ(round.requests[2].death, Tick{3});
  EXPECT_EQ(b.origin, (Origin{1, 1}));
}

TEST_F(RoundRecorderTest, WhatNobodyCouldServeIsLeftOut) {
  next();
  const Block a = born(mib(1));
  const Origin lost = recorder_.add(mib(4096), -1);
  recorder_.withdraw(lost);
  EXPECT_EQ(recorder_.live_bytes(), mib(1));
  EXPECT_EQ(recorder_.peak_bytes(), mib(1));
  recorder_.note_backward();
  upstream_.insert_recorded(&upstream_, {born(mib(2)), false});
  recorder_.end(a);
  recorder_.end(born(mib(3)));
  recorder_.withdraw({0, 0});  // of an earlier round: nothing to do
  const Round round = next();
  ASSERT_EQ(round.requests.size(), 3U);
  EXPECT_EQ(round.requests[0].death, Tick{2});
  EXPECT_EQ(round.requests[1].size, mib(2));
  EXPECT_EQ(round.requests[2].death, Tick{3});
  EXPECT_EQ(round.backward_begin, Tick{1});
  EXPECT_EQ(upstream_.take_recorded(&upstream_)->origin, (Origin{1, 1}));
  ASSERT_EQ(recorder_.round().survivors.size(), 1U);
  EXPECT_EQ(recorder_.round().survivors[0].origin, (Origin{1, 1}));
}

TEST_F(RoundRecorderTest, CountsTheBytesOfThisRoundAliveNowAndAtTheirHighest) {
  next();
  const Block a = born(mib(4));
  const Block b = born(mib(2));
  recorder_.end(a);
  EXPECT_EQ(recorder_.live_bytes(), mib(2));
  EXPECT_EQ(recorder_.peak_bytes(), mib(6));
  next();
  EXPECT_EQ(recorder_.peak_bytes(), Bytes{});
  recorder_.end(b);
  EXPECT_EQ(recorder_.live_bytes(), Bytes{});
}

TEST_F(RoundRecorderTest, WhatIsAliveAtTheEndSurvivesIntoTheNext) {
  next();
  arena_.insert(Offset{512}, born(mib(4)));
  upstream_.insert_recorded(this, {born(mib(2)), false});
  const Round first = next();
  EXPECT_TRUE(first.survivors.empty());
  ASSERT_EQ(recorder_.round().survivors.size(), 2U);
  born(mib(1));
  recorder_.end(*arena_.find(Offset{512}));
  arena_.erase(Offset{512});
  const Round second = next();
  ASSERT_EQ(second.survivors.size(), 2U);
  EXPECT_TRUE(second.survivors[0].in_arena);
  EXPECT_EQ(second.survivors[0].origin, (Origin{1, 0}));
  EXPECT_EQ(second.survivors[0].end, Tick{1});
  EXPECT_FALSE(second.survivors[1].in_arena);
  EXPECT_EQ(second.survivors[1].end, kAlive);
  EXPECT_EQ(recorder_.round().survivors.size(), 1U);
}

TEST_F(RoundRecorderTest, ParametersAreOlderThanAllRoundsAndOnlyTheirSizesAreKept) {
  upstream_.insert(this, {{mib(8), {}, {}, -1}, false});
  upstream_.insert(&book_, {{mib(8), {}, {}, -1}, false});
  upstream_.insert(&arena_, {{mib(3), {}, {}, -1}, false});
  next();
  EXPECT_TRUE(recorder_.round().survivors.empty());
  const Round round = next();
  EXPECT_EQ(round.constant_sizes, (std::vector<Bytes>{mib(3), mib(8)}));
}

TEST_F(RoundRecorderTest, SizesOfParametersThatNobodyFollowedCountAsWell) {
  upstream_.insert(this, {{mib(8), {}, {}, -1}, false});
  recorder_.note_constant_sizes({mib(5), mib(8), mib(5), mib(2)});
  next();
  EXPECT_EQ(next().constant_sizes, (std::vector<Bytes>{mib(2), mib(5), mib(8)}));
}

TEST_F(RoundRecorderTest, ResidentsAreTheSurvivorsThatTheBookKnowsSortedByRoot) {
  next();
  arena_.insert(Offset{0}, born(mib(4)));
  arena_.insert(Offset{mib(8).value}, born(mib(2)));
  const Round round = next();
  EXPECT_TRUE(recorder_.residents().empty());
  book_.learn(round);
  recorder_.resolve(book_, arena_);
  const std::vector<ProgramBook::Resident> residents = recorder_.residents();
  ASSERT_EQ(residents.size(), 2U);
  EXPECT_LT(residents[0].root, residents[1].root);
  EXPECT_EQ(residents[0].size + residents[1].size, mib(6));
}

// It was taken for a request of one program, and is learnt as another one's.
TEST_F(RoundRecorderTest, ForgottenRootsAreThoseOfTheRunningRoundAlone) {
  next();
  Block before = born(mib(1));
  before.root = RootId{7};
  arena_.insert(Offset{0}, before);
  next();
  Block taken = born(mib(2));
  taken.root = RootId{8};
  arena_.insert(Offset{mib(1).value}, taken);
  recorder_.forget_roots(arena_);
  next();
  ASSERT_EQ(recorder_.round().survivors.size(), 2U);
  EXPECT_EQ(recorder_.round().survivors[0].root, RootId{7});
  EXPECT_EQ(recorder_.round().survivors[1].root, RootId{});
}

TEST_F(RoundRecorderTest, WhatStaysForGoodInTheArenaSurvivesAndIsNoResident) {
  next();
  recorder_.end(born(mib(64)));
  arena_.insert(Offset{0}, born(mib(4)));
  book_.learn(next());
  recorder_.resolve(book_, arena_);
  recorder_.end(born(mib(64)));
  const Round second = next();
  ASSERT_EQ(recorder_.residents().size(), 1U);
  book_.learn(second);
  ASSERT_TRUE(book_.is_permanent(book_.root_of({1, 1})));
  recorder_.begin_again(RoundKind::kForward, 1, arena_, upstream_, book_);
  EXPECT_EQ(recorder_.round().survivors.size(), 1U);
  EXPECT_TRUE(recorder_.residents().empty());
}

TEST_F(RoundRecorderTest, NotesWhereTheOptimizersOwnRequestsEnd) {
  next(RoundKind::kOptimizer);
  born(mib(1));
  recorder_.note_optimizer_end();
  born(mib(1));
  const Round round = next();
  EXPECT_EQ(round.optimizer_end, Tick{1});
  EXPECT_EQ(recorder_.round().optimizer_end, kAlive);
  EXPECT_EQ(recorder_.round().previous, RoundKind::kOptimizer);
}

}  // namespace
}  // namespace ebbtide
