#include "allocator/runtime/backoff.h"

#include <gtest/gtest.h>

namespace ebbtide {
namespace {

constexpr Bytes kRound{1 << 30};
constexpr Bytes kNone{};

void note(Backoff& backoff, Bytes planned, Bytes all, bool is_new = false) {
  backoff.begin(is_new);
  backoff.note({all, planned, planned, is_new});
}

int rest_of(Backoff& backoff) {
  int rounds = 0;
  for (; backoff.is_resting(); ++rounds) note(backoff, kNone, kRound);
  return rounds;
}

TEST(Backoff, RoundsThatFitAreServed) {
  Backoff backoff;
  for (int i = 0; i < 100; ++i) note(backoff, i % 3 == 0 ? kRound : kNone, kRound);
  EXPECT_FALSE(backoff.is_resting()) << "never three misfits in a row";
}

TEST(Backoff, RoundsThatDoNotRepeatFollowNoPlan) {
  Backoff backoff;
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(backoff.is_resting());
    note(backoff, kNone, kRound);
  }
  EXPECT_TRUE(backoff.is_resting());
}

TEST(Backoff, RoundsOfInputsThatWereNeverSeenCountAThird) {
  Backoff backoff;
  for (int i = 0; i < 9; ++i) {
    EXPECT_FALSE(backoff.is_resting());
    note(backoff, kNone, kRound, true);
  }
  EXPECT_TRUE(backoff.is_resting());
}

TEST(Backoff, AfterARestOneRoundIsOnTrial) {
  Backoff backoff;
  for (int i = 0; i < 3; ++i) note(backoff, kNone, kRound);
  const int first = rest_of(backoff);
  EXPECT_TRUE(backoff.is_on_trial(false) && backoff.is_on_trial(true));
  note(backoff, kNone, kRound);
  EXPECT_TRUE(backoff.is_resting()) << "it did not repeat, either";
  EXPECT_EQ(rest_of(backoff), 2 * first);
  note(backoff, kRound, kRound);
  EXPECT_FALSE(backoff.is_resting() || backoff.is_on_trial(false) || backoff.is_on_trial(true));
}

// Most of it fits: enough for serving to go on, not for memory.
constexpr Bytes kMost{kRound.value - kRound.value / 8};

TEST(Backoff, WhatComesAfterARoundThatWasNotAsPlannedIsOnTrial) {
  Backoff backoff;
  note(backoff, kMost, kRound);
  EXPECT_TRUE(backoff.is_on_trial(false));
  note(backoff, kRound, kRound);
  EXPECT_FALSE(backoff.is_on_trial(false)) << "it was as planned";
}

TEST(Backoff, AfterSeveralSuchRoundsOfNewInputsOneThatWasAsPlannedIsNotEnough) {
  Backoff backoff;
  for (int i = 0; i < 3; ++i) note(backoff, kMost, kRound, true);
  int trials = 0;
  for (; backoff.is_on_trial(true); ++trials) note(backoff, kRound, kRound, true);
  EXPECT_EQ(trials, 6) << "two of the last eight are forgiven";
}

TEST(Backoff, RoundsOfKnownInputsSayNothingOfThoseOfNewOnes) {
  Backoff backoff;
  note(backoff, kMost, kRound, true);
  EXPECT_TRUE(backoff.is_on_trial(true));
  EXPECT_FALSE(backoff.is_on_trial(false) || backoff.is_idle());
  note(backoff, kMost, kRound, false);
  EXPECT_TRUE(backoff.is_idle()) << "no round of this kind is served by a plan";
  note(backoff, kRound, kRound, true);
  EXPECT_TRUE(backoff.is_on_trial(false) && !backoff.is_on_trial(true));
}

TEST(Backoff, ARoundWhosePlanWasRefusedSaysNothingOfPlans) {
  Backoff backoff;
  backoff.begin(true);
  backoff.note({kRound, kNone, std::nullopt, true});
  EXPECT_FALSE(backoff.is_on_trial(true));
}

// Programs that take turns and are not told apart before are not on trial for ever.
TEST(Backoff, ATrialThatBeganWithAnotherProgramIsNotRightOnce) {
  Backoff backoff;
  note(backoff, kMost, kRound);
  const auto turn = [&] {
    EXPECT_TRUE(backoff.begin(false));
    backoff.note({kRound, kRound, kRound, false, true});
  };
  turn();
  turn();
  EXPECT_FALSE(backoff.begin(false));
}

TEST(Backoff, PlansThatMayNeedLessMemoryThanATrialAreTriedAgain) {
  Backoff backoff;
  for (int i = 0; i < 4; ++i) note(backoff, kMost, kRound, true);
  EXPECT_TRUE(backoff.begin(true));
  backoff.forget_plans();
  EXPECT_FALSE(backoff.begin(true));
}

TEST(Backoff, RestsHaveAnEnd) {
  Backoff backoff;
  for (int i = 0; i < 3; ++i) note(backoff, kNone, kRound);
  for (int i = 0; i < 20; ++i) {
    EXPECT_LE(rest_of(backoff), 512);
    note(backoff, kNone, kRound);
  }
}

TEST(Backoff, RoundsOfHardlyAnythingSayNothing) {
  Backoff backoff;
  for (int i = 0; i < 10; ++i) note(backoff, kNone, Bytes{1000});
  EXPECT_FALSE(backoff.is_resting());
}

}  // namespace
}  // namespace ebbtide
