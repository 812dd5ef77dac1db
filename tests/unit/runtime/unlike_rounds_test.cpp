// Rounds that are not what was planned: how much memory the arena takes for them, and what it leaves to upstream.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "allocator/runtime/engine.h"
#include "tests/unit/runtime/simulated_adaptor.h"

namespace ebbtide::simulation {
namespace {

Bytes mib(std::int64_t count) { return Bytes{count * kMiB.value}; }

// Tensors of these sizes, all alive at once, then gone. Returns how much memory the arena had at most.
Bytes run(SimulatedAdaptor& adaptor, const std::vector<Bytes>& sizes, const Extents& input = {},
          MarkKind kind = MarkKind::kForward) {
  adaptor.engine().settle();
  adaptor.engine().mark(kind, 1, input);
  std::vector<TensorId> tensors;
  for (const Bytes size : sizes) tensors.push_back(adaptor.allocate(size));
  const Bytes arena = adaptor.engine().snapshot().arena;
  for (const TensorId tensor : tensors) adaptor.free(tensor);
  return arena;
}

std::vector<Bytes> followed_by(Bytes last, std::size_t count, Bytes size) {
  std::vector<Bytes> sizes(count, size);
  sizes.push_back(last);
  return sizes;
}

TEST(UnlikeRounds, WhatIsMostlyUnexpectedStaysInTheArena) {
  SimulatedAdaptor adaptor;
  for (const std::int64_t last : {32, 48, 32, 48}) run(adaptor, followed_by(mib(last), 40, mib(16)));
  const Counters before = adaptor.engine().snapshot().counters;
  run(adaptor, std::vector<Bytes>(60, mib(24)));
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_LE(after.diverged.requests - before.diverged.requests, 8);
  EXPECT_GE(after.gap.requests - before.gap.requests, 52);
  expect_no_fault(adaptor);
}

// Copies of parameters come as ever, so places in front of them are gaps for some of what is not expected between.
TEST(UnlikeRounds, WhatIsMostlyUnexpectedStaysInTheArenaThoughSomeOfItHasGaps) {
  SimulatedAdaptor adaptor;
  const auto sizes = [](std::int64_t tensor, std::int64_t last) {
    std::vector<Bytes> all;
    for (int i = 0; i < 40; ++i) all.insert(all.end(), {mib(8), mib(tensor), mib(tensor)});
    all.push_back(mib(last));
    return all;
  };
  for (const std::int64_t last : {32, 48, 32, 48}) run(adaptor, sizes(16, last));
  const Counters before = adaptor.engine().snapshot().counters;
  run(adaptor, sizes(24, 64));
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_LE(after.diverged.bytes - before.diverged.bytes, mib(8 * 24));
  expect_no_fault(adaptor);
}

// Rows of any length with as many tokens each time, but for rows that do not fill up: nothing varied until then.
TEST(UnlikeRounds, FewerTokensThanEverAreExpectedWhereTheInputTells) {
  SimulatedAdaptor adaptor;
  const auto sizes = [](std::int64_t tokens, std::int64_t length) {
    std::vector<Bytes> all;
    for (int i = 0; i < 20; ++i) all.insert(all.end(), {mib(8), Bytes{1024 * tokens}, Bytes{2048 * tokens}, mib(2)});
    all.push_back(Bytes{16 * tokens * length});
    return all;
  };
  for (const Extents& input : {Extents{128, 128}, Extents{32, 512}, Extents{16, 1024}}) run(adaptor, sizes(16384, input[1]), input);
  const Counters before = adaptor.engine().snapshot().counters;
  run(adaptor, sizes(16128, 384), {42, 384});
  EXPECT_EQ(adaptor.engine().snapshot().counters.planned.requests - before.planned.requests, 81);
  expect_no_fault(adaptor);
}

TEST(UnlikeRounds, ASmallOneDoesNotMakeTheArenaGrowToThePlanOfALargeOne) {
  SimulatedAdaptor adaptor;
  for (const std::int64_t size : {64, 32, 64, 48, 64}) run(adaptor, followed_by(mib(16), 8, mib(size)));
  adaptor.engine().release_idle();
  EXPECT_EQ(adaptor.engine().snapshot().arena, Bytes{});
  EXPECT_LE(run(adaptor, followed_by(mib(16), 8, mib(32))), mib((16 + 8 * 32) * 9 / 8));
  EXPECT_EQ(run(adaptor, followed_by(mib(16), 8, mib(64))), mib(16 + 8 * 64)) << "a large one still gets what it needs";
  expect_no_fault(adaptor);
}

// The first evaluation has larger batches than training: what it needs stands in the arena, which grows.
TEST(UnlikeRounds, TheFirstRoundOfAKindThatIsLargerThanTheArenaDoesNotStandBesideIt) {
  SimulatedAdaptor adaptor;
  for (int i = 0; i < 4; ++i) run(adaptor, followed_by(mib(16), 8, mib(32)), {64, 128});
  const Counters before = adaptor.engine().snapshot().counters;
  EXPECT_EQ(run(adaptor, followed_by(mib(16), 8, mib(64)), {256, 128}, MarkKind::kInference), mib(8 * 64 + 16));
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_EQ(after.gap.requests - before.gap.requests, 9);
  EXPECT_EQ(adaptor.arena_live(), Bytes{});
  expect_no_fault(adaptor);
}

// Sides of images tell little of sizes: most were expected to grow with the area, and hardly grow.
TEST(UnlikeRounds, TheArenaDoesNotGrowToAPlanOfGuesses) {
  SimulatedAdaptor adaptor;
  const auto sizes = [](std::int64_t side, std::int64_t kept) {
    std::vector<Bytes> all;
    for (int i = 0; i < 4; ++i) all.push_back(Bytes{side * side * 512});
    for (std::int64_t i = 0; i < 20; ++i) all.push_back(Bytes{(kept + i) * 224 * 224 * 8});
    return all;
  };
  const auto sum = [](const std::vector<Bytes>& all) { return std::accumulate(all.begin(), all.end(), Bytes{}); };
  run(adaptor, sizes(224, 64), {96, 3, 224, 224});
  const std::vector<Bytes> second = sizes(288, 60);
  EXPECT_LE(run(adaptor, second, {96, 3, 288, 288}).value, std::max(sum(second), sum(sizes(224, 64))).value * 33 / 32);
  expect_no_fault(adaptor);
}

// An encoder's tensors grow with its own length. After one pair of lengths they might as well grow with the product.
TEST(UnlikeRounds, WhatOneShapeLeavesOpenIsNotPlannedForTheLargestGuess) {
  SimulatedAdaptor adaptor;
  const auto encoder = [](std::int64_t length) {
    std::vector<Bytes> sizes;
    for (std::int64_t width = 2048; width < 2048 + 20 * 64; width += 64) sizes.push_back(Bytes{16 * width * length});
    return sizes;
  };
  const std::vector<Bytes> largest = encoder(1024);
  const Bytes needed = std::accumulate(largest.begin(), largest.end(), Bytes{});
  run(adaptor, encoder(192), {16, 192, 16, 64});
  EXPECT_LE(run(adaptor, largest, {16, 1024, 16, 256}).value, needed.value * 9 / 8);
  EXPECT_LE(run(adaptor, encoder(640), {16, 640, 16, 192}).value, needed.value * 9 / 8);
  const Counters before = adaptor.engine().snapshot().counters;
  run(adaptor, encoder(960), {16, 960, 16, 128});
  EXPECT_EQ(adaptor.engine().snapshot().counters.planned.requests - before.planned.requests, 20);
  expect_no_fault(adaptor);
}

// A second forward, while the first one's tensors live, has a batch of its own: its tensors do not grow with the first one's.
TEST(UnlikeRounds, WhatALaterForwardOfItDoesIsNotPlannedByTheInputOfTheFirst) {
  SimulatedAdaptor adaptor;
  const auto round = [&](std::int64_t batch) {
    adaptor.engine().settle();
    std::vector<TensorId> tensors;
    for (const std::int64_t each : {batch, std::int64_t{100}}) {
      adaptor.engine().mark(MarkKind::kForward, 1, {each, 512});
      for (std::int64_t width = 40; width < 50; ++width) tensors.push_back(adaptor.allocate(Bytes{each * 512 * 16 * width}));
    }
    const Bytes arena = adaptor.engine().snapshot().arena;
    for (const TensorId tensor : tensors) adaptor.free(tensor);
    return arena;
  };
  const Bytes needed{(75 + 100) * 512 * 16 * (40 + 49) * 5};
  round(25);
  EXPECT_LE(round(75).value, needed.value * 9 / 8);
  const Counters before = adaptor.engine().snapshot().counters;
  EXPECT_LE(round(50).value, needed.value * 9 / 8);
  EXPECT_EQ(adaptor.engine().snapshot().counters.planned.requests - before.planned.requests, 20);
  expect_no_fault(adaptor);
}

// A program that calls its modules itself: what one gives to the next has more extents than the first one's input, but none
// of its own.
TEST(UnlikeRounds, WhatGoesFromOneModuleToTheNextIsNoInputOfItsOwn) {
  SimulatedAdaptor adaptor;
  const auto round = [&](std::int64_t tokens) {
    adaptor.engine().settle();
    std::vector<TensorId> tensors;
    for (std::uint64_t module = 1; module <= 3; ++module) {
      adaptor.engine().mark(MarkKind::kForward, module, module == 1 ? Extents{1, tokens} : Extents{1, tokens, 2048});
      for (std::int64_t width = 40; width < 50; ++width) tensors.push_back(adaptor.allocate(Bytes{tokens * 512 * width}));
    }
    for (const TensorId tensor : tensors) adaptor.free(tensor);
  };
  round(1211);
  round(3307);
  const Counters before = adaptor.engine().snapshot().counters;
  round(2503);
  EXPECT_EQ(adaptor.engine().snapshot().counters.planned.requests - before.planned.requests, 30);
  expect_no_fault(adaptor);
}

// Two programs begin alike, but what one keeps the other has let go of when its own tensors come. Those on top of what is
// expected last, which may never come, would make the arena twice as high.
TEST(UnlikeRounds, AnotherProgramIsNotPlannedBesideWhatItWouldNotHaveAlive) {
  SimulatedAdaptor adaptor;
  const auto round = [&](bool keeps_start, int of_one, int of_other, int late) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1, {8, 512});
    std::vector<TensorId> tensors;
    for (int i = 0; i < 10; ++i) tensors.push_back(adaptor.allocate(mib(64)));
    for (; !keeps_start && !tensors.empty(); tensors.pop_back()) adaptor.free(tensors.back());
    for (int i = 0; i < of_one; ++i) tensors.push_back(adaptor.allocate(mib(40)));
    for (int i = 0; i < of_other; ++i) tensors.push_back(adaptor.allocate(mib(16)));
    for (int i = 0; i < late; ++i) tensors.push_back(adaptor.allocate(mib(80)));
    const Bytes arena = adaptor.engine().snapshot().arena;
    for (const TensorId tensor : tensors) adaptor.free(tensor);
    return arena;
  };
  for (int i = 0; i < 4; ++i) {
    round(true, 5, 0, 0);
    round(false, 0, 12, 8);
  }
  adaptor.engine().release_idle();
  EXPECT_LE(round(true, 2, 12, 0), mib(640 + 2 * 40 + 12 * 16));
  expect_no_fault(adaptor);
}

// Something small lies under what is large and comes next: a plan around it makes the arena grow by the small one, no plan
// has the large one stand beside the arena.
TEST(UnlikeRounds, WhatLiesInTheWayIsPlannedAroundForWhatWouldStandBesideTheArena) {
  SimulatedAdaptor adaptor;
  for (int i = 0; i < 4; ++i) run(adaptor, {mib(512)});
  ASSERT_EQ(adaptor.engine().snapshot().arena, mib(512));
  void* const stray = adaptor.engine().allocate_anywhere(mib(16), {}, {});
  ASSERT_EQ(stray, adaptor.engine().base());
  const Counters before = adaptor.engine().snapshot().counters;
  EXPECT_EQ(run(adaptor, {mib(512)}), mib(528));
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_EQ(after.planned.requests - before.planned.requests, 1);
  EXPECT_TRUE(adaptor.engine().deallocate(stray));
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
}

// Something lives on in the place of what comes next, for which there is no gap.
TEST(UnlikeRounds, WhatOutlivesItsPlaceIsPlannedAroundForWhatWouldStandBesideTheArena) {
  SimulatedAdaptor adaptor;
  const auto round = [&](bool lives_on) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1);
    const TensorId first = adaptor.allocate(mib(64));
    if (!lives_on) adaptor.free(first);
    adaptor.free(adaptor.allocate(mib(512)));
    if (lives_on) adaptor.free(first);
    return adaptor.engine().snapshot();
  };
  for (int i = 0; i < 4; ++i) ASSERT_LE(round(false).arena, mib(512));
  const Engine::Snapshot after = round(true);
  EXPECT_EQ(after.arena, mib(64 + 512));
  EXPECT_EQ(after.counters.diverged.requests, 0);
  expect_no_fault(adaptor);
}

// Six sizes grow, each more than those before it let expect, and the last one is that of most tensors.
TEST(UnlikeRounds, SizesThatArePredictedWronglyAgainAndAgainDoNotStandBesideTheArena) {
  SimulatedAdaptor adaptor;
  const auto sizes = [](std::vector<std::int64_t> first, std::int64_t most) {
    std::vector<Bytes> all(40, mib(most));
    std::transform(first.begin(), first.end(), std::inserter(all, all.begin()), mib);
    return all;
  };
  for (int i = 0; i < 4; ++i) run(adaptor, sizes({16, 20, 24, 28, 36}, 48));
  const std::vector<Bytes> grown = sizes({17, 23, 31, 41, 58}, 97);
  const Bytes needed = std::accumulate(grown.begin(), grown.end(), Bytes{});
  const Counters before = adaptor.engine().snapshot().counters;
  const Bytes arena = run(adaptor, grown);
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_LE(arena.value, needed.value * 9 / 8);
  EXPECT_LE(after.diverged.bytes - before.diverged.bytes, mib(256)) << "until there is one more plan";
  expect_no_fault(adaptor);
}

// Giving memory back and taking it again waits for the device, every time.
TEST(UnlikeRounds, WhatNeverRepeatsKeepsTheArenaFromOneRoundToTheNext) {
  SimulatedAdaptor adaptor;
  std::mt19937 random(5);
  const auto round = [&] {
    std::vector<Bytes> sizes;
    for (int k = 0; k < 40; ++k) sizes.push_back(Bytes{static_cast<std::int64_t>(random() % (64U << 20)) + 4096});
    run(adaptor, sizes);
  };
  for (int i = 0; i < 8; ++i) round();
  const auto shrinks = [&] {
    const auto& calls = adaptor.range().calls();
    return std::count_if(calls.begin(), calls.end(), [](const auto& call) { return call.kind == fakes::FakeRange::Call::Kind::kShrink; });
  };
  const auto before = shrinks();
  for (int i = 0; i < 40; ++i) round();
  EXPECT_LE(shrinks() - before, 2);
  expect_no_fault(adaptor);
}

// Training as planned, then generation that does nothing twice.
TEST(UnlikeRounds, WhatDoesNotRepeatSharesTheArenaWithWhatDoes) {
  SimulatedAdaptor adaptor;
  const std::vector<Bytes> training(40, mib(16));
  for (int i = 0; i < 4; ++i) EXPECT_LE(run(adaptor, training), mib(640));
  EXPECT_EQ(adaptor.engine().snapshot().arena, mib(640));
  std::mt19937 random(5);
  Bytes most;
  const Counters before = adaptor.engine().snapshot().counters;
  for (int i = 0; i < 12; ++i) {
    std::vector<Bytes> sizes;
    for (int k = 0; k < 40; ++k) sizes.push_back(Bytes{static_cast<std::int64_t>(random() % (64U << 20)) + 4096});
    most = std::max(most, std::accumulate(sizes.begin(), sizes.end(), Bytes{}));
    EXPECT_LE(run(adaptor, sizes, {}, MarkKind::kInference).value, most.value * 17 / 16) << "round " << i;
  }
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_EQ(after.unplanned.requests + after.diverged.requests, before.unplanned.requests + before.diverged.requests);
  const std::int64_t planned = after.planned.requests;
  run(adaptor, training);
  EXPECT_EQ(adaptor.engine().snapshot().counters.planned.requests - planned, 40) << "what repeats is served as before";
  expect_no_fault(adaptor);
}

// How many requests of a round had planned places, and how many gaps.
using Served = std::pair<std::int64_t, std::int64_t>;

Served served(SimulatedAdaptor& adaptor, const std::vector<Bytes>& sizes) {
  const Counters before = adaptor.engine().snapshot().counters;
  run(adaptor, sizes);
  const Counters after = adaptor.engine().snapshot().counters;
  return {after.planned.requests - before.planned.requests, after.gap.requests - before.gap.requests};
}

std::vector<Bytes> every_other_one_of_any_size(std::vector<Bytes> sizes) {
  std::mt19937 random(5);
  for (std::size_t i = 0; i < sizes.size(); i += 2) sizes[i] = Bytes{static_cast<std::int64_t>(random() % (64U << 20)) + 4096};
  return sizes;
}

// The places of a plan that is not right stand in the way: a round that repeats waits until one did.
TEST(UnlikeRounds, AfterARoundThatWasNotAsPlannedTheNextOnesAreServedFromGaps) {
  SimulatedAdaptor adaptor;
  const std::vector<Bytes> training(40, mib(16));
  for (int i = 0; i < 4; ++i) run(adaptor, training);
  EXPECT_EQ(served(adaptor, training), Served(40, 0));
  EXPECT_LT(served(adaptor, every_other_one_of_any_size(training)).first, 38);
  EXPECT_EQ(served(adaptor, training), Served(0, 40)) << "on trial";
  for (int i = 0; i < 2; ++i) run(adaptor, training);  // has to be told from the other round, and to have been foretold
  EXPECT_EQ(served(adaptor, training), Served(40, 0));
  expect_no_fault(adaptor);
}

// Each large tensor is a little larger than the one before, and something is kept of each: in gaps none follows another one in its place.
TEST(UnlikeRounds, ARoundOnTrialFollowsAPlanWhereGapsWouldNeedFarMore) {
  SimulatedAdaptor adaptor;
  const auto round = [&](std::int64_t length, int others = 0) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1, {1, length});
    std::vector<TensorId> kept;
    for (std::int64_t i = 0; i < 6; ++i) {
      const TensorId large = adaptor.allocate(Bytes{(8 + i) * length * 1024});
      kept.push_back(adaptor.allocate(Bytes{length * 1024}));
      adaptor.free(large);
    }
    for (int i = 0; i < others; ++i) adaptor.free(adaptor.allocate(mib(20 + i)));
    for (const TensorId tensor : kept) adaptor.free(tensor);
    return adaptor.range().extent();
  };
  for (const std::int64_t length : {16'001, 20'003, 18'005}) round(length);
  round(19'007, 8);
  const Counters before = adaptor.engine().snapshot().counters;
  const std::int64_t length = 64'009;
  EXPECT_LE(round(length), Bytes{20 * length * 1024}) << "gaps would need 22 parts, a plan 19";
  EXPECT_GT(adaptor.engine().snapshot().counters.planned.requests, before.planned.requests);
  expect_no_fault(adaptor);
}

// After one shape of one sequence nothing is sure of what grows with the batch, so the arena does not grow to a plan; but what comes
// first has every size that comes behind it.
TEST(UnlikeRounds, ARoundWhoseSizesWereNotSureFollowsAPlanOnceTheyAre) {
  SimulatedAdaptor adaptor;
  const auto round = [&](std::int64_t batch, std::int64_t length) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1, {batch, length});
    const auto parts = [&](std::int64_t count) { return adaptor.allocate(Bytes{count * batch * length * 1024}); };
    for (const std::int64_t large : {8, 9, 10, 11, 12, 13}) adaptor.free(parts(large));
    std::vector<TensorId> kept;
    for (const std::int64_t large : {13, 8, 9, 10, 11, 12, 13}) {
      const TensorId passing = parts(large);
      kept.push_back(parts(1));
      adaptor.free(passing);
    }
    for (const TensorId tensor : kept) adaptor.free(tensor);
    return adaptor.range().extent();
  };
  round(1, 16'001);
  const std::int64_t planned = adaptor.engine().snapshot().counters.planned.requests;
  EXPECT_LE(round(4, 10'007), Bytes{21 * 4 * 10'007 * 1024}) << "gaps would need 27 parts, a plan 20";
  EXPECT_GE(adaptor.engine().snapshot().counters.planned.requests - planned, 12);
  expect_no_fault(adaptor);
}

// A gradient, where the plan of the optimizer's step looks for it, though another gap is tighter.
TEST(UnlikeRounds, WhatLivesOnIsAtItsHomeInARoundOnTrial) {
  SimulatedAdaptor adaptor;
  Engine& engine = adaptor.engine();
  const auto iterate = [&](int others = 0) {
    engine.settle();
    engine.mark(MarkKind::kForward, 1);
    std::vector<TensorId> tensors;
    for (const std::int64_t size : {32, 8, 16, 8}) tensors.push_back(adaptor.allocate(mib(size)));
    adaptor.free(tensors[0]);
    adaptor.free(tensors[2]);
    void* const gradient = engine.allocate(mib(16), {}).address;
    for (int i = 0; i < others; ++i) adaptor.free(adaptor.allocate(mib(3 + i)));
    adaptor.free(tensors[1]);
    adaptor.free(tensors[3]);
    engine.settle();
    engine.mark(MarkKind::kOptimizer, 2);
    adaptor.free(adaptor.allocate(mib(48)));
    engine.mark(MarkKind::kOptimizerEnd, 0);
    EXPECT_TRUE(engine.deallocate(gradient));
    return gradient;
  };
  for (int i = 0; i < 6; ++i) iterate();
  const void* const home = iterate();
  iterate(8);
  const Counters before = engine.snapshot().counters;
  EXPECT_EQ(iterate(), home);
  EXPECT_EQ(engine.snapshot().counters.gap.requests - before.gap.requests, 5) << "the forward was on trial";
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
}

// Gaps may need more than the plan does: more than there is.
TEST(UnlikeRounds, NoRoundIsOnTrialWhereLittleMemoryIsLeft) {
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.range.capacity = mib(1024);
  SimulatedAdaptor adaptor(options);
  const std::vector<Bytes> training(40, mib(16));
  for (int i = 0; i < 4; ++i) run(adaptor, training);
  run(adaptor, every_other_one_of_any_size(training));
  EXPECT_GT(served(adaptor, training).first, 0);
  EXPECT_EQ(served(adaptor, training), Served(40, 0));
  expect_no_fault(adaptor);
}

}  // namespace
}  // namespace ebbtide::simulation
