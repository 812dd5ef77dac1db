#include "swap/ticket_planner.h"

#include <gtest/gtest.h>

#include <vector>

#include "swap/places.h"

namespace ebbtide {
namespace {

constexpr Bytes units(std::int64_t count) { return {count * Places::kAlignment.value}; }

// Births have a size, deaths are the turn that dies.
struct Step {
  std::int64_t birth = 0;  // in units; 0: a death
  std::size_t death = 0;
};

// Not last in, first out: first fit leaves a hole of 2 below the 3.
const std::vector<Step> kFragmenting{{.birth = 2}, {.birth = 1}, {.death = 0}, {.birth = 3},
                                     {.birth = 2}, {.death = 1}, {.death = 2}, {.death = 3}};

std::vector<std::optional<Offset>> play(TicketPlanner& planner, const std::vector<Step>& steps) {
  std::vector<std::optional<Offset>> offsets;
  for (const Step& step : steps) {
    if (step.birth == 0) {
      planner.end(step.death);
      continue;
    }
    offsets.push_back(planner.propose(units(step.birth)));
    planner.begin(units(step.birth));
  }
  return offsets;
}

bool has_all(const std::vector<std::optional<Offset>>& offsets) {
  for (const auto& offset : offsets) {
    if (!offset) return false;
  }
  return true;
}

TEST(TicketPlanner, PlansARoundOnceItRepeats) {
  TicketPlanner planner;
  EXPECT_FALSE(play(planner, kFragmenting)[0]);
  planner.settle();
  EXPECT_FALSE(play(planner, kFragmenting)[0]) << "seen once only";
  planner.settle();
  EXPECT_TRUE(has_all(play(planner, kFragmenting)));
  EXPECT_EQ(planner.rounds(), 3);
  EXPECT_EQ(planner.plan_height(), planner.plan_lower_bound());
}

TEST(TicketPlanner, PlannedPlacesOfTicketsAliveTogetherDoNotMeet) {
  TicketPlanner planner;
  for (int i = 0; i < 2; ++i) play(planner, kFragmenting);
  planner.settle();
  const auto offsets = play(planner, kFragmenting);
  ASSERT_TRUE(has_all(offsets));
  // Turns 1, 2 and 3 (sizes 1, 3 and 2) are alive at once.
  Places places(planner.plan_height());
  places.take(*offsets[1], units(1));
  places.take(*offsets[2], units(3));
  places.take(*offsets[3], units(2));
  EXPECT_TRUE(places.is_valid());
}

TEST(TicketPlanner, SmallerTicketsFollowThePlanOfLargerOnes) {
  TicketPlanner planner;
  const std::vector<Step> large{{.birth = 4}, {.birth = 6}, {.death = 1}, {.death = 0}};
  const std::vector<Step> small{{.birth = 3}, {.birth = 5}, {.death = 1}, {.death = 0}};
  for (int i = 0; i < 2; ++i) play(planner, large);
  planner.settle();
  EXPECT_TRUE(has_all(play(planner, small)));
}

TEST(TicketPlanner, WhatOutgrowsThePlanHasNoPlannedPlaceNorHasTheRestOfTheRound) {
  TicketPlanner planner;
  for (int i = 0; i < 2; ++i)
    play(planner,
         {{.birth = 4}, {.birth = 2}, {.birth = 1}, {.death = 0}, {.death = 1}, {.death = 2}});
  planner.settle();
  const auto offsets =
      play(planner,
           {{.birth = 4}, {.birth = 3}, {.birth = 1}, {.death = 0}, {.death = 1}, {.death = 2}});
  EXPECT_TRUE(offsets[0]);
  EXPECT_FALSE(offsets[1]);
  EXPECT_FALSE(offsets[2]);
}

TEST(TicketPlanner, TheSmallestPlanThatHoldsTheFirstTicketIsFollowed) {
  TicketPlanner planner;
  for (const std::int64_t size : {4, 9}) {
    const std::vector<Step> round{{.birth = size}, {.birth = 1}, {.death = 0}, {.death = 1}};
    for (int i = 0; i < 2; ++i) play(planner, round);
    planner.settle();
  }
  const auto play_one = [&](std::int64_t size) {
    return has_all(play(planner, {{.birth = size}, {.death = 0}}));
  };
  EXPECT_TRUE(play_one(3));
  EXPECT_EQ(planner.plan_height(), units(5));
  EXPECT_TRUE(play_one(5));
  EXPECT_EQ(planner.plan_height(), units(10));
  EXPECT_FALSE(play_one(10));
}

TEST(TicketPlanner, OnlyTheLatestPlansAreKept) {
  TicketPlanner planner;
  for (std::int64_t size = 20; size > 0; --size) {
    for (int i = 0; i < 2; ++i) play(planner, {{.birth = size}, {.death = 0}});
    planner.settle();
  }
  EXPECT_FALSE(play(planner, {{.birth = 20}, {.death = 0}})[0]);
  EXPECT_TRUE(play(
      planner, {{.birth = static_cast<std::int64_t>(TicketPlanner::kMostPlans)}, {.death = 0}})[0]);
}

TEST(TicketPlanner, ARoundThatIsNeverOverIsNotRememberedWithoutBound) {
  TicketPlanner planner;
  const std::size_t held = planner.begin(units(1));
  for (std::size_t i = 1; i < TicketPlanner::kMostTurns; ++i) planner.end(planner.begin(units(2)));
  const std::size_t beyond = planner.begin(units(3));
  EXPECT_EQ(beyond, TicketPlanner::kMostTurns);
  EXPECT_FALSE(planner.end(beyond));
  EXPECT_TRUE(planner.end(held));
  // The next rounds are as ever.
  for (int i = 0; i < 2; ++i) play(planner, kFragmenting);
  planner.settle();
  EXPECT_TRUE(has_all(play(planner, kFragmenting)));
}

TEST(TicketPlannerDeathTest, ATurnDiesOnce) {
  TicketPlanner planner;
  planner.begin(units(1));
  planner.begin(units(1));
  planner.end(0);
  EXPECT_DEATH(planner.end(0), "death");
}

}  // namespace
}  // namespace ebbtide
