#include "allocator/runtime/backoff.h"

#include <gtest/gtest.h>

namespace ebbtide {
namespace {

constexpr Bytes kRound{1 << 30};
constexpr Bytes kNone{};

int rest_of(Backoff& backoff) {
  int rounds = 0;
  for (; backoff.is_resting(); ++rounds) backoff.note(kNone, kRound);
  return rounds;
}

TEST(Backoff, RoundsThatFitAreServed) {
  Backoff backoff;
  for (int i = 0; i < 100; ++i) backoff.note(i % 3 == 0 ? kRound : kNone, kRound);
  EXPECT_FALSE(backoff.is_resting()) << "never three misfits in a row";
}

TEST(Backoff, RoundsThatDoNotRepeatFollowNoPlan) {
  Backoff backoff;
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(backoff.is_resting());
    backoff.note(kNone, kRound);
  }
  EXPECT_TRUE(backoff.is_resting());
}

TEST(Backoff, RoundsOfInputsThatWereNeverSeenCountAThird) {
  Backoff backoff;
  for (int i = 0; i < 9; ++i) {
    EXPECT_FALSE(backoff.is_resting());
    backoff.note(kNone, kRound, true);
  }
  EXPECT_TRUE(backoff.is_resting());
}

TEST(Backoff, AfterARestOneRoundIsOnTrial) {
  Backoff backoff;
  for (int i = 0; i < 3; ++i) backoff.note(kNone, kRound);
  const int first = rest_of(backoff);
  EXPECT_TRUE(backoff.is_on_trial());
  backoff.note(kNone, kRound);
  EXPECT_TRUE(backoff.is_resting()) << "it did not repeat, either";
  EXPECT_EQ(rest_of(backoff), 2 * first);
  backoff.note(kRound, kRound);
  EXPECT_FALSE(backoff.is_resting() || backoff.is_on_trial());
}

TEST(Backoff, RestsHaveAnEnd) {
  Backoff backoff;
  for (int i = 0; i < 3; ++i) backoff.note(kNone, kRound);
  for (int i = 0; i < 20; ++i) {
    EXPECT_LE(rest_of(backoff), 512);
    backoff.note(kNone, kRound);
  }
}

TEST(Backoff, RoundsOfHardlyAnythingSayNothing) {
  Backoff backoff;
  for (int i = 0; i < 10; ++i) backoff.note(kNone, Bytes{1000});
  EXPECT_FALSE(backoff.is_resting());
}

}  // namespace
}  // namespace ebbtide
