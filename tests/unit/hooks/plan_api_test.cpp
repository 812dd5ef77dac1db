// The planner through the C interface and its C++ form, as a program meets them.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>

#include "hooks/ebbtide.h"
#include "hooks/ebbtide.hpp"

namespace {

// a and b are live together; c comes after both.
constexpr const char* kProblem = "id,lower,upper,size\na,0,2,40\nb,1,3,60\nc,3,4,100\n";

class PlanApi : public testing::Test {
 protected:
  ~PlanApi() override { ebbtide_problem_free(problem_); }

  ebbtide_status read(const std::string& text, int device = -1) {
    return ebbtide_problem_read(text.data(), text.size(), "p.csv", device, &problem_);
  }
  ebbtide_plan_result plan(std::int64_t capacity = -1) {
    ebbtide_plan_options options{sizeof(options), 10, capacity, 1, 1, nullptr, nullptr, nullptr};
    ebbtide_plan_result result{};
    result.struct_size = sizeof(result);
    EXPECT_EQ(ebbtide_problem_plan(problem_, &options, &result), EBBTIDE_OK);
    return result;
  }
  ebbtide_status check(const std::string& text, std::int64_t capacity = -1) {
    return ebbtide_problem_check(problem_, text.data(), text.size(), "plan.csv", capacity,
                                 &height_);
  }

  ebbtide_problem* problem_ = nullptr;
  std::int64_t height_ = -1;
};

TEST_F(PlanApi, AProblemThatWasReadIsPlannedAtItsLowerBound) {
  ASSERT_EQ(read(kProblem), EBBTIDE_OK) << ebbtide_last_error();
  ebbtide_problem_info info{};
  info.struct_size = sizeof(info);
  ASSERT_EQ(ebbtide_problem_get_info(problem_, &info), EBBTIDE_OK);
  EXPECT_EQ(info.buffers, 3);
  EXPECT_EQ(info.lower_bound_bytes, 100);
  EXPECT_EQ(info.device, -1);
  const ebbtide_plan_result result = plan();
  EXPECT_EQ(result.height_bytes, 100);
  EXPECT_EQ(result.lower_bound_bytes, 100);
  EXPECT_EQ(result.state, EBBTIDE_PLAN_OPTIMAL);
  EXPECT_EQ(result.has_plan, 1);
}

TEST_F(PlanApi, ThePlanAsCsvPassesTheCheck) {
  ASSERT_EQ(read(kProblem), EBBTIDE_OK);
  plan();
  const char* text = nullptr;
  std::size_t size = 0;
  ASSERT_EQ(ebbtide_problem_csv(problem_, &text, &size), EBBTIDE_OK);
  EXPECT_EQ(std::strlen(text), size);
  EXPECT_EQ(check(text), EBBTIDE_OK) << ebbtide_last_error();
  EXPECT_EQ(height_, 100);
}

TEST_F(PlanApi, ABrokenPlanIsNamedWithBothBuffers) {
  ASSERT_EQ(read(kProblem), EBBTIDE_OK);
  EXPECT_EQ(check("id,offset\na,0\nb,30\nc,0\n"), EBBTIDE_BAD_PLAN);
  EXPECT_STREQ(
      ebbtide_last_error(),
      "plan.csv: buffer 'a' (size 40, offset 0) and buffer 'b' (size 60, offset 30) live at "
      "the same tick and overlap");
  EXPECT_EQ(check("id,offset\na,0\nb,40\nc,9223372036854775807\n"), EBBTIDE_BAD_PLAN);
  EXPECT_EQ(check("id,offset\na,0\nb,40\nc,0\n", 99), EBBTIDE_BAD_PLAN);
  EXPECT_STREQ(ebbtide_last_error(),
               "plan.csv: buffer 'b' (size 60, offset 40) ends above the height 99");
  EXPECT_EQ(check("id\na\n"), EBBTIDE_INVALID_ARGUMENT);
}

TEST_F(PlanApi, ACapacityBelowTheLowerBoundIsProvedTooSmall) {
  ASSERT_EQ(read(kProblem), EBBTIDE_OK);
  EXPECT_EQ(plan(99).state, EBBTIDE_PLAN_INFEASIBLE);
  const int fits = plan(100).state;
  EXPECT_TRUE(fits == EBBTIDE_PLAN_OPTIMAL || fits == EBBTIDE_PLAN_FEASIBLE);
}

TEST_F(PlanApi, WrongInputIsToldWithItsPlace) {
  EXPECT_EQ(read("id,lower,upper,size\na,0,2,x\n"), EBBTIDE_INVALID_ARGUMENT);
  EXPECT_STREQ(ebbtide_last_error(), "p.csv:2:7: size is not an integer: 'x'");
  EXPECT_EQ(read("id,lower,upper,size,offset\na,0,2,4,0\nb,0,2,4,0\n"), EBBTIDE_INFEASIBLE);
  EXPECT_EQ(read(kProblem, 2), EBBTIDE_INVALID_ARGUMENT);
  EXPECT_EQ(problem_, nullptr);
}

TEST_F(PlanApi, BuffersThatAreAddedMayLiveInSeveralIntervals) {
  ASSERT_EQ(ebbtide_problem_new(&problem_), EBBTIDE_OK);
  const std::array<std::int64_t, 4> apart{0, 1, 2, 3};
  const std::array<std::int64_t, 2> between{1, 2};
  const std::array<std::int64_t, 2> nothing{2, 2};
  EXPECT_EQ(ebbtide_problem_add(problem_, "a", 64, 64, -1, apart.data(), 2), EBBTIDE_OK);
  EXPECT_EQ(ebbtide_problem_add(problem_, "b", 64, 64, 0, between.data(), 1), EBBTIDE_OK);
  EXPECT_EQ(ebbtide_problem_add(problem_, "c", 64, 64, 0, nothing.data(), 1),
            EBBTIDE_INVALID_ARGUMENT);
  EXPECT_EQ(plan().height_bytes, 64);
  std::array<std::int64_t, 2> offsets{-1, -1};
  ASSERT_EQ(ebbtide_problem_get_offsets(problem_, offsets.data(), offsets.size()), EBBTIDE_OK);
  EXPECT_EQ(offsets, (std::array<std::int64_t, 2>{0, 0}));
}

TEST_F(PlanApi, ArenasHaveTheirOwnAddressesHeightsAndCapacities) {
  ASSERT_EQ(ebbtide_problem_new(&problem_), EBBTIDE_OK);
  const std::array<std::int64_t, 2> life{0, 9};
  for (const char* arena : {"device", "host", "device"}) {
    ASSERT_EQ(ebbtide_problem_add_to(problem_, arena, "x", 64, 1, -1, life.data(), 1), EBBTIDE_OK);
  }
  ASSERT_EQ(ebbtide_problem_arenas(problem_), 2U);
  const ebbtide_plan_result result = plan();
  EXPECT_EQ(result.height_bytes, 192);
  EXPECT_EQ(result.state, EBBTIDE_PLAN_OPTIMAL);
  ebbtide_arena arena{};
  arena.struct_size = sizeof(arena);
  ASSERT_EQ(ebbtide_problem_get_arena(problem_, 0, &arena), EBBTIDE_OK);
  EXPECT_STREQ(arena.name, "device");
  EXPECT_EQ(arena.buffers, 2);
  EXPECT_EQ(arena.height_bytes, 128);
  ASSERT_EQ(ebbtide_problem_get_arena(problem_, 1, &arena), EBBTIDE_OK);
  EXPECT_EQ(arena.height_bytes, 64);
  EXPECT_EQ(ebbtide_problem_get_arena(problem_, 2, &arena), EBBTIDE_INVALID_ARGUMENT);

  EXPECT_EQ(ebbtide_problem_set_capacity(problem_, "disk", 1), EBBTIDE_INVALID_ARGUMENT);
  ASSERT_EQ(ebbtide_problem_set_capacity(problem_, "host", 63), EBBTIDE_OK);
  EXPECT_EQ(plan().state, EBBTIDE_PLAN_INFEASIBLE);
  EXPECT_EQ(check("id,offset\nx,0\nx,0\nx,64\n"), EBBTIDE_BAD_PLAN);
  ASSERT_EQ(ebbtide_problem_set_capacity(problem_, "host", -1), EBBTIDE_OK);
  EXPECT_EQ(check("id,offset\nx,0\nx,0\nx,64\n"), EBBTIDE_OK);
  EXPECT_EQ(check("id,offset\nx,0\nx,0\nx,63\n"), EBBTIDE_BAD_PLAN);
  EXPECT_EQ(check("id,offset\nx,0\nx,0\nx,64\n", 128), EBBTIDE_INVALID_ARGUMENT);
}

TEST_F(PlanApi, WhatNoSearchCanAnswerIsRefused) {
  ASSERT_EQ(read(kProblem), EBBTIDE_OK);
  std::array<std::int64_t, 3> offsets{};
  EXPECT_EQ(ebbtide_problem_get_offsets(problem_, offsets.data(), 3), EBBTIDE_INVALID_ARGUMENT);
  ebbtide_plan_options options{sizeof(options), -1, -1, 1, 1, nullptr, nullptr, nullptr};
  ebbtide_plan_result result{};
  result.struct_size = sizeof(result);
  EXPECT_EQ(ebbtide_problem_plan(problem_, &options, &result), EBBTIDE_INVALID_ARGUMENT);
  options.time_limit = 1;
  options.threads = 0;
  EXPECT_EQ(ebbtide_problem_plan(problem_, &options, &result), EBBTIDE_INVALID_ARGUMENT);
}

TEST_F(PlanApi, ProgressIsToldAndStoppingKeepsThePlan) {
  ASSERT_EQ(read(kProblem), EBBTIDE_OK);
  std::int64_t told = 0;
  ebbtide_plan_options options{sizeof(options),
                               10,
                               -1,
                               1,
                               1,
                               [](void*) { return 1; },
                               [](const ebbtide_plan_result* best, void* context) {
                                 *static_cast<std::int64_t*>(context) = best->height_bytes;
                               },
                               &told};
  ebbtide_plan_result result{};
  result.struct_size = sizeof(result);
  ASSERT_EQ(ebbtide_problem_plan(problem_, &options, &result), EBBTIDE_OK);
  EXPECT_EQ(result.has_plan, 1);
  EXPECT_EQ(told, result.height_bytes);
}

TEST(Planner, PlansInCpp) {
  ebbtide::Planner planner;
  planner.add("activation", 1 << 20, 0, 4, 512);
  planner.add("gradient", 1 << 20, 4, 8, 512);
  const ebbtide::Plan plan = planner.plan();
  EXPECT_EQ(plan.height, 1 << 20);
  EXPECT_EQ(plan.lower_bound, 1 << 20);
  EXPECT_EQ(plan.state, EBBTIDE_PLAN_OPTIMAL);
  EXPECT_EQ(plan.offsets, (std::vector<std::int64_t>{0, 0}));
  EXPECT_THROW(planner.add("never", 1, 3, 3), std::runtime_error);
  EXPECT_THROW(ebbtide::Planner("id\n", "p.csv"), std::runtime_error);
  ebbtide::Planner two;
  two.add("activation", 64, 0, 4);
  two.add("copy", 96, 0, 4, 1, -1, "host");
  two.set_capacity("host", 100);
  const ebbtide::Plan both = two.plan(1);
  ASSERT_EQ(both.arenas.size(), 2U);
  EXPECT_EQ(both.height, 160);
  EXPECT_EQ(both.arenas[1].name, "host");
  EXPECT_EQ(both.arenas[1].height, 96);
}

}  // namespace
