#include "allocator/runtime/round_cutter.h"

#include <gtest/gtest.h>

#include <utility>

namespace ebbtide {
namespace {

using Decision = RoundCutter::Decision;

// A running round: its kind, the share of its peak still alive, and whether a backward ran.
RoundState running(RoundKind kind, int percent_alive, bool has_seen_backward) {
  RoundState state;
  state.is_empty = false;
  state.kind = kind;
  state.peak = Bytes{1000};
  state.live = Bytes{10 * percent_alive};
  state.has_seen_backward = has_seen_backward;
  return state;
}

TEST(RoundCutter, TheFirstMarkEndsWhatCameBefore) {
  RoundState state;
  state.is_prologue = true;
  for (const MarkKind mark : {MarkKind::kUser, MarkKind::kForward, MarkKind::kInference, MarkKind::kOptimizer}) {
    EXPECT_EQ(RoundCutter().decide(mark, state), Decision::kCut);
  }
  EXPECT_EQ(RoundCutter().decide(MarkKind::kOptimizerEnd, state), Decision::kIgnore);
}

TEST(RoundCutter, AMarkOnAnEmptyRoundSaysWhatItIs) {
  RoundState state;
  state.kind = RoundKind::kStep;
  EXPECT_EQ(RoundCutter().decide(MarkKind::kForward, state), Decision::kDescribe);
}

TEST(RoundCutter, MicroBatchesOfAnAccumulatedStepAreRoundsOfTheirOwn) {
  EXPECT_EQ(RoundCutter().decide(MarkKind::kForward, running(RoundKind::kForward, 60, true)), Decision::kCut);
}

// Beside 60 % of gradients that live on: outputs that the program still holds; a graph for gradients of gradients.
TEST(RoundCutter, ABackwardWhoseGraphLivesOnEndsNoRound) {
  RoundState state = running(RoundKind::kForward, 95, true);
  for (const auto& [kept, decision] : {std::pair{35, Decision::kCut}, {80, Decision::kIgnore}}) {
    state.kept = Bytes{10 * kept};
    EXPECT_EQ(RoundCutter().decide(MarkKind::kForward, state), decision);
    EXPECT_EQ(RoundCutter().decide(MarkKind::kOptimizer, state), Decision::kCut);
  }
}

TEST(RoundCutter, ATeacherAndItsStudentAreOneRound) {
  EXPECT_EQ(RoundCutter().decide(MarkKind::kForward, running(RoundKind::kForward, 90, false)), Decision::kIgnore);
  EXPECT_EQ(RoundCutter().decide(MarkKind::kInference, running(RoundKind::kForward, 90, false)), Decision::kIgnore);
}

TEST(RoundCutter, ATeacherWithoutGradientsIsARoundBeforeItsStudents) {
  EXPECT_EQ(RoundCutter().decide(MarkKind::kForward, running(RoundKind::kInference, 30, false)), Decision::kCut);
}

TEST(RoundCutter, ForwardsThatCleanedUpAreRoundsOfTheirOwn) {
  EXPECT_EQ(RoundCutter().decide(MarkKind::kForward, running(RoundKind::kForward, 5, false)), Decision::kCut);
}

TEST(RoundCutter, EvaluationBatchesAreRoundsOfTheirOwn) {
  EXPECT_EQ(RoundCutter().decide(MarkKind::kInference, running(RoundKind::kInference, 40, false)), Decision::kCut);
}

TEST(RoundCutter, OptimizersAndUsersAlwaysCut) {
  for (const RoundKind kind : {RoundKind::kForward, RoundKind::kInference, RoundKind::kOptimizer, RoundKind::kStep}) {
    EXPECT_EQ(RoundCutter().decide(MarkKind::kOptimizer, running(kind, 90, false)), Decision::kCut);
    EXPECT_EQ(RoundCutter().decide(MarkKind::kUser, running(kind, 90, false)), Decision::kCut);
  }
}

TEST(RoundCutter, TheEndOfAnOptimizerCutsNothing) {
  EXPECT_EQ(RoundCutter().decide(MarkKind::kOptimizerEnd, running(RoundKind::kOptimizer, 10, false)), Decision::kIgnore);
}

// Tensors and functions alone: nothing else tells where the next forward begins.
TEST(RoundCutter, TheEndOfAnOptimizerBeginsWhatHasABackwardThatNoModuleBegan) {
  RoundCutter cutter;
  const RoundState step = running(RoundKind::kOptimizer, 10, false);
  EXPECT_EQ(cutter.decide(MarkKind::kOptimizer, running(RoundKind::kUnmarked, 10, true)), Decision::kCut);
  EXPECT_EQ(cutter.decide(MarkKind::kOptimizerEnd, step), Decision::kCut);
  RoundState empty = running(RoundKind::kUnmarked, 10, false);
  empty.is_empty = true;
  EXPECT_EQ(cutter.decide(MarkKind::kOptimizer, empty), Decision::kDescribe) << "of another optimizer, at once";
  EXPECT_EQ(cutter.decide(MarkKind::kOptimizerEnd, step), Decision::kCut);
  EXPECT_EQ(cutter.decide(MarkKind::kOptimizerEnd, running(RoundKind::kForward, 10, false)), Decision::kIgnore) << "in its closure";
  EXPECT_EQ(cutter.decide(MarkKind::kOptimizer, running(RoundKind::kForward, 10, true)), Decision::kCut);
  EXPECT_EQ(cutter.decide(MarkKind::kOptimizerEnd, step), Decision::kIgnore) << "modules tell by themselves";
}

TEST(RoundCutter, SourcesAreNumberedInTheirOrderOfAppearance) {
  RoundCutter cutter;
  EXPECT_EQ(cutter.ordinal(0), 0U);
  EXPECT_EQ(cutter.ordinal(0x7f00), 1U);
  EXPECT_EQ(cutter.ordinal(0x1200), 2U);
  EXPECT_EQ(cutter.ordinal(0x7f00), 1U);
  EXPECT_EQ(cutter.ordinal(0), 0U);
}

TEST(RoundCutterTest, FormsOfOneSourceHaveNumbersOfTheirOwnInEveryRun) {
  constexpr std::uint64_t kThird = std::uint64_t{3} << 48;
  RoundCutter first, second;
  EXPECT_EQ(first.ordinal(kThird | 0x7f00), second.ordinal(kThird | 0x1200));
  EXPECT_NE(first.ordinal(kThird | 0x7f00), first.ordinal(0x7f00));
  EXPECT_EQ(first.ordinal(kThird | 0x7f00) - first.ordinal(0x7f00), first.ordinal(kThird));
}

TEST(RoundCutter, EveryMarkHasItsKindOfRound) {
  EXPECT_EQ(RoundCutter::kind_of(MarkKind::kUser), RoundKind::kStep);
  EXPECT_EQ(RoundCutter::kind_of(MarkKind::kForward), RoundKind::kForward);
  EXPECT_EQ(RoundCutter::kind_of(MarkKind::kInference), RoundKind::kInference);
  EXPECT_EQ(RoundCutter::kind_of(MarkKind::kOptimizer), RoundKind::kOptimizer);
}

}  // namespace
}  // namespace ebbtide
