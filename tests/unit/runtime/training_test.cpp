// Whole training programs on the engine: what a user's run looks like from below.
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <thread>

#include "tests/unit/runtime/training_program.h"

namespace ebbtide::simulation {
namespace {

// What a stretch of iterations did.
struct Stretch {
  double planned = 0;  // share of bytes
  double height = 0;   // the arena's extent over the peak of live bytes in it
};

Stretch run(SimulatedAdaptor& adaptor, int iterations, const std::function<void(int)>& iterate) {
  const Counters before = adaptor.engine().snapshot().counters;
  static_cast<void>(adaptor.take_arena_peak());
  for (int i = 0; i < iterations; ++i) iterate(i);
  const Engine::Snapshot after = adaptor.engine().snapshot();
  adaptor.check_books();
  const auto bytes = [](Bytes a, Bytes b) { return static_cast<double>((a - b).value); };
  Stretch stretch;
  stretch.planned = bytes(after.counters.planned.bytes, before.planned.bytes) /
                    bytes(after.counters.all.bytes, before.all.bytes);
  stretch.height =
      static_cast<double>(after.arena.value) / static_cast<double>(adaptor.take_arena_peak().value);
  return stretch;
}

// Improving a plan ends after a time: a sanitized build does not get as far in it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kHeight = 1.03;
#else
constexpr double kHeight = 1.01;
#endif

// A regular program is planned nearly whole, at nearly its own peak; an irregular one states what it
// is allowed.
void expect_served(SimulatedAdaptor& adaptor, const Stretch& stretch, double planned = 0.995,
                   double height = kHeight) {
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
  EXPECT_GE(stretch.planned, planned) << adaptor.engine().snapshot().counters.first_divergence;
  EXPECT_LE(stretch.height, height);
}

TEST(Training, PlainLoopIsPlannedWholeAtItsPeak) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  const auto iterate = [&](int) { program.iterate(4096, ZeroGrad::kAfterStep); };
  run(adaptor, 6, iterate);
  expect_served(adaptor, run(adaptor, 10, iterate));
}

TEST(Training, LateZeroGradIsPlannedWholeAtItsPeak) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  const auto iterate = [&](int) { program.iterate(4096, ZeroGrad::kBeforeBackward); };
  run(adaptor, 6, iterate);
  expect_served(adaptor, run(adaptor, 10, iterate));
}

TEST(Training, TheArenaNeverStandsBesideTheGradientsOfTheObservedStep) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  program.iterate(1024, ZeroGrad::kBeforeBackward);
  program.mark(MarkKind::kForward);
  program.forward(1500);
  const Engine::Snapshot forward = adaptor.engine().snapshot();
  EXPECT_GT(forward.arena_live.value, 0);
  EXPECT_LE(forward.arena.value, forward.arena_live.value + forward.arena_live.value / 8);  // it grows in steps
}

TEST(Training, GradientAccumulationIsPlannedWholeAtItsPeak) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  const auto iterate = [&](int) { program.iterate(4096, ZeroGrad::kAfterStep, 4); };
  run(adaptor, 6, iterate);
  expect_served(adaptor, run(adaptor, 8, iterate));
}

TEST(Training, ShorterInputsUseThePlanOfTheLongest) {
  SimulatedAdaptor adaptor;
  ModelShape shape;
  shape.heads = 8;
  TrainingProgram program(adaptor, shape);
  std::mt19937 random(7);
  std::uniform_int_distribution<std::int64_t> length(16, 64);
  const auto iterate = [&](int i) { program.iterate(i % 8 == 0 ? 4096 : 64 * length(random), ZeroGrad::kAfterStep); };
  run(adaptor, 16, iterate);
  expect_served(adaptor, run(adaptor, 32, iterate));
}

TEST(Training, MasksThatOnlySomeLengthsPadCostNoRoomTwice) {
  SimulatedAdaptor adaptor;
  ModelShape shape;
  shape.masks = true;
  TrainingProgram program(adaptor, shape);
  std::mt19937 random(3);
  std::uniform_int_distribution<std::int64_t> length(4096, 8192);
  const auto iterate = [&](int i) {
    const std::int64_t tokens = length(random) / 8 * 8;
    program.iterate(i == 4 ? 8192 + 5 : tokens + (i % 4 == 3 ? 0 : 3), ZeroGrad::kAfterStep);
  };
  run(adaptor, 24, iterate);
  expect_served(adaptor, run(adaptor, 32, [&](int i) { iterate(i == 4 ? 5 : i); }), 0.97, 2.0);
  // The longest input is a padded one: no plan needs more than that one does.
  const Stretch longest = run(adaptor, 1, [&](int) { iterate(4); });
  expect_served(adaptor, longest, 0.95, 1.01);
}

// The first length that needs no padding is longer than all others: one mask a layer where two were expected.
TEST(Training, AMaskThatIsUsedAsItIsTakesThePlaceOfThePaddedOne) {
  SimulatedAdaptor adaptor;
  ModelShape shape;
  shape.masks = true;
  shape.tells_input = true;
  TrainingProgram program(adaptor, shape);
  for (const std::int64_t tokens : {4001, 5003, 4507}) program.iterate(tokens, ZeroGrad::kAfterStep);
  const Stretch stretch = run(adaptor, 1, [&](int) { program.iterate(8000, ZeroGrad::kAfterStep); });
  expect_served(adaptor, stretch, 0.85, 1.07);
}

TEST(Training, AnInputMuchLongerThanAllBeforeIsPlannedNearItsPeakAtOnce) {
  SimulatedAdaptor adaptor;
  ModelShape shape;
  shape.masks = true;
  TrainingProgram program(adaptor, shape);
  const auto iterate = [&](int i) { program.iterate(2048 + 8 * i, ZeroGrad::kAfterStep); };
  run(adaptor, 6, iterate);
  expect_served(adaptor, run(adaptor, 1, [&](int) { program.iterate(8192, ZeroGrad::kAfterStep); }), 0.9, 1.06);
}

TEST(Training, GrowingInputsStayPlanned) {
  SimulatedAdaptor adaptor;
  ModelShape shape;
  shape.heads = 8;
  TrainingProgram program(adaptor, shape);
  std::int64_t tokens = 1024;
  run(adaptor, 8, [&](int) { program.iterate(tokens += 64, ZeroGrad::kAfterStep); });
  const auto iterate = [&](int) { program.iterate(tokens += 64, ZeroGrad::kAfterStep); };
  expect_served(adaptor, run(adaptor, 16, iterate), 0.9, 1.05);
}

TEST(Training, EvaluationBetweenEpochsDoesNotDisturbTraining) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  const auto iterate = [&](int i) {
    program.iterate(4096, ZeroGrad::kAfterStep);
    if (i % 4 != 3) return;
    for (int k = 0; k < 3; ++k) adaptor.free(program.evaluate(4096));
  };
  run(adaptor, 12, iterate);
  expect_served(adaptor, run(adaptor, 16, iterate));
}

TEST(Training, TwoModelsTakingTurnsArePlannedTogether) {
  SimulatedAdaptor adaptor;
  TrainingProgram large(adaptor, {}, 1);
  ModelShape shape;
  shape.layers = 4;
  TrainingProgram small(adaptor, shape, 2);
  const auto iterate = [&](int) {
    large.iterate(4096, ZeroGrad::kAfterStep);
    small.iterate(4096, ZeroGrad::kAfterStep);
  };
  run(adaptor, 8, iterate);
  expect_served(adaptor, run(adaptor, 8, iterate));
}

TEST(Training, ATensorThatTheUserHoldsForAWhileHarmsNothing) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  std::vector<TensorId> held;
  const auto iterate = [&](int i) {
    program.train(4096);
    if (i % 5 == 2) held.push_back(adaptor.allocate(Bytes{24 * kMiB.value}));
    program.step(ZeroGrad::kAfterStep);
    if (held.size() > 2) {
      adaptor.free(held.front());
      held.erase(held.begin());
    }
  };
  run(adaptor, 15, iterate);
  expect_served(adaptor, run(adaptor, 20, iterate), 0.9, 1.1);
}

// Scratch memory that is gone at once in most rounds, with much that comes and goes where it was.
TEST(Training, WhatOutlivesItsPlaceIsPlannedAround) {
  constexpr int kTemporaries = 40;
  SimulatedAdaptor adaptor;
  const auto iterate = [&](bool keeps_scratch) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kUser, 0);
    adaptor.free(adaptor.allocate(Bytes{512 * kMiB.value}));
    const TensorId scratch = adaptor.allocate(Bytes{64 * kMiB.value});
    if (!keeps_scratch) adaptor.free(scratch);
    for (int i = 0; i < kTemporaries; ++i) adaptor.free(adaptor.allocate(Bytes{(32 + i) * kMiB.value}));
    if (keeps_scratch) adaptor.free(scratch);
  };
  for (int i = 0; i < 4; ++i) iterate(false);
  const Stretch stretch = run(adaptor, 1, [&](int) { iterate(true); });
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
  EXPECT_EQ(stretch.planned, 1);
  EXPECT_EQ(adaptor.engine().snapshot().counters.divergences[static_cast<int>(Divergence::kPlaceTaken)], 0);
  EXPECT_EQ(adaptor.engine().snapshot().arena, Bytes{512 * kMiB.value});
}

TEST(Training, AnExceptionInTheBackwardIsRecoveredFrom) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  const auto iterate = [&](int) { program.iterate(4096, ZeroGrad::kAfterStep); };
  run(adaptor, 6, iterate);
  program.train_and_fail(4096, 5);
  in_backward = false;
  run(adaptor, 4, iterate);
  // The round behind it had the failed one's gradients beside its own tensors, all of it in the arena, which
  // stays as high.
  EXPECT_EQ(adaptor.engine().snapshot().counters.diverged.requests, 0);
  expect_served(adaptor, run(adaptor, 8, iterate), 0.995, 1.35);
}

TEST(Training, WhatNobodyCouldServeIsNotPlannedFor) {
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.range.capacity = Bytes{64 * kGiB.value};
  SimulatedAdaptor adaptor(options);
  TrainingProgram program(adaptor, {});
  program.iterate(4096, ZeroGrad::kAfterStep);
  program.mark(MarkKind::kForward);
  program.forward(4096);
  const auto requested = adaptor.engine().snapshot().counters.all;
  adaptor.fail_to_allocate(Bytes{4096 * kGiB.value});
  EXPECT_EQ(adaptor.engine().snapshot().counters.all.bytes, requested.bytes);
  EXPECT_EQ(adaptor.engine().snapshot().counters.all.requests, requested.requests);
  for (const TensorId saved : program.take_saved()) adaptor.free(saved);
  const auto iterate = [&](int) { program.iterate(4096, ZeroGrad::kAfterStep); };
  run(adaptor, 6, iterate);
  expect_served(adaptor, run(adaptor, 10, iterate));
}

TEST(Training, AnArenaThatCannotGrowLeavesTheRestToUpstream) {
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.range.capacity = Bytes{2 * kGiB.value};
  SimulatedAdaptor adaptor(options);
  TrainingProgram program(adaptor, {});
  run(adaptor, 12, [&](int) { program.iterate(8192, ZeroGrad::kAfterStep); });
  const Engine::Snapshot now = adaptor.engine().snapshot();
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
  EXPECT_LE(now.arena, options.range.capacity);
  EXPECT_GT(now.counters.divergences[static_cast<std::size_t>(Divergence::kNoMemory)], 0);
}

TEST(Training, ARangeThatCannotGrowInPlaceIsTakenAtItsHeightAtOnce) {
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.range.grows_in_place = false;
  SimulatedAdaptor adaptor(options);
  TrainingProgram program(adaptor, {});
  const auto iterate = [&](int) { program.iterate(4096, ZeroGrad::kAfterStep); };
  run(adaptor, 6, iterate);
  expect_served(adaptor, run(adaptor, 10, iterate));
}

TEST(Training, ThreadsMayFreeWhatAnotherAllocated) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  for (int i = 0; i < 12; ++i) {
    program.mark(MarkKind::kForward);
    program.forward(4096);
    std::vector<TensorId> saved = program.take_saved();
    adaptor.begin_threads();
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t k = t; k < saved.size(); k += 4) adaptor.free(saved[k]);
      });
    }
    for (int k = 0; k < 64; ++k) adaptor.free(adaptor.allocate(Bytes{(1 + k % 4) * kMiB.value}));
    for (std::thread& thread : threads) thread.join();
    adaptor.end_threads();
    adaptor.check_books();
  }
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
  EXPECT_EQ(adaptor.arena_live(), Bytes{});
}

TEST(Training, ObservingServesNothingAndCountsEverything) {
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.engine.observe_only = true;
  SimulatedAdaptor adaptor(options);
  TrainingProgram program(adaptor, {});
  for (int i = 0; i < 6; ++i) program.iterate(4096, ZeroGrad::kAfterStep);
  adaptor.check_books();
  const Engine::Snapshot now = adaptor.engine().snapshot();
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
  EXPECT_EQ(now.counters.all.requests, now.counters.unplanned.requests);
  EXPECT_EQ(now.arena, Bytes{});
  EXPECT_FALSE(now.serving);
  EXPECT_TRUE(adaptor.range().calls().empty());
}

TEST(Training, APlanOfAnEarlierRunServesTheFirstIteration) {
  ProgramBook book;
  {
    SimulatedAdaptor adaptor;
    TrainingProgram program(adaptor, {});
    for (int i = 0; i < 6; ++i) program.iterate(4096, ZeroGrad::kAfterStep);
    book = *adaptor.engine().finish();
  }
  SimulatedAdaptor adaptor(SimulatedAdaptor::defaults(), book);
  TrainingProgram program(adaptor, {});
  program.train(4096);
  const Counters first = adaptor.engine().snapshot().counters;
  EXPECT_GT(first.planned.bytes.value, 0);
  EXPECT_EQ(first.gap.requests + first.diverged.requests, 0) << first.first_divergence;
  program.step(ZeroGrad::kAfterStep);
  const auto iterate = [&](int) { program.iterate(4096, ZeroGrad::kAfterStep); };
  run(adaptor, 4, iterate);
  expect_served(adaptor, run(adaptor, 8, iterate));
}

// The number of pieces follows the length, and no two lengths are alike.
TEST(Training, ProgramsThatNeverRepeatTakeNoMoreThanTheyNeedAndMaySettleLater) {
  SimulatedAdaptor adaptor;
  std::mt19937 random(5);
  Bytes most;
  const auto irregular = [&] {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1);
    std::vector<TensorId> kept;
    for (int i = 0; i < 200; ++i) kept.push_back(adaptor.allocate(Bytes{static_cast<std::int64_t>(random() % (64U << 20)) + 4096}));
    most = std::max(most, adaptor.arena_live());
    for (const TensorId id : kept) adaptor.free(id);
  };
  for (int i = 0; i < 12; ++i) irregular();
  EXPECT_LE(adaptor.engine().snapshot().arena.value, most.value * 17 / 16);
  EXPECT_EQ(adaptor.engine().snapshot().counters.unplanned.requests, 0) << "nothing stands beside the arena";
  TrainingProgram program(adaptor, {});
  const auto iterate = [&](int) { program.iterate(4096, ZeroGrad::kAfterStep); };
  run(adaptor, 200, iterate);
  expect_served(adaptor, run(adaptor, 8, iterate), 0.9, 1.1);
}

TEST(Training, NothingIsServedAfterTheEndAndWhatLivesStaysValid) {
  SimulatedAdaptor adaptor;
  TrainingProgram program(adaptor, {});
  for (int i = 0; i < 5; ++i) program.iterate(4096, ZeroGrad::kAfterStep);
  program.mark(MarkKind::kForward);
  program.forward(4096);
  EXPECT_GT(adaptor.arena_live(), Bytes{});
  const auto book = adaptor.engine().finish();
  EXPECT_FALSE(book->programs.empty());
  EXPECT_EQ(adaptor.engine().allocate(kMiB, {}).address, nullptr);
  for (const TensorId tensor : program.take_saved()) adaptor.free(tensor);
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
  EXPECT_EQ(adaptor.arena_live(), Bytes{});
}

}  // namespace
}  // namespace ebbtide::simulation
