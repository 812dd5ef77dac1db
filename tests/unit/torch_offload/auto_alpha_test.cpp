// AlphaRule::kAuto asks the planner of addresses before a choice stands.
#include <ATen/Parallel.h>
#include <ebbtide/ebbtide.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "small_gpt.h"

namespace ebbtide::offload {
namespace {

// The heights of the plans by share, in a budget of 100; empty: nothing plans.
std::function<std::int64_t()> planned_height;

}  // namespace
}  // namespace ebbtide::offload

// In place of the library's: what an executable defines is found first.
extern "C" ebbtide_status ebbtide_get_step_plan(int, int64_t* height_bytes, int64_t* budget_bytes) {
  if (!ebbtide::offload::planned_height) return EBBTIDE_UNSUPPORTED;
  *height_bytes = ebbtide::offload::planned_height();
  *budget_bytes = 100;
  return EBBTIDE_OK;
}

namespace ebbtide::offload {
namespace {

constexpr std::chrono::duration<double, std::milli> kComputing{0.3};  // more than a copy takes

// Trains until a choice stands. Steps are shorter the more is swapped, so that what keeps alpha from 1 is the planner,
// but for what else the machine does: a smaller share may be measured to be faster.
// `height`: of the plan at a share; 0: there is none yet.
Stats settle_under(const std::function<std::int64_t(double alpha)>& height) {
  Options options;
  options.alpha_rule = AlphaRule::kAuto;
  options.mini_sequence = 16;
  options.keep_last = 0;
  options.host = std::int64_t{64} << 20;
  at::set_num_threads(1);  // several would wait for each other where others work, too
  Gpt model = make_gpt(2, at::kFloat, 0);
  Session session(at::kCPU, options);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    model->block(layer).at_after = [&] {
      std::this_thread::sleep_for(kComputing + (1 - session.stats().alpha) * kComputing);
    };
  }
  planned_height = [&] { return height(session.stats().alpha); };
  for (int step = 0; step < 80 && !session.stats().plan; ++step) {
    model->offloaded(session, some_tokens(1, 32)).backward();
  }
  planned_height = {};
  return session.stats();
}

TEST(AutoAlpha, AChoiceStandsWithItsPlan) {
  const Stats stats = settle_under([](double) { return 100; });
  EXPECT_TRUE(stats.plan.value().fits());
  EXPECT_NE(stats.alpha_limit, "device");
}

TEST(AutoAlpha, AShareWhoseAddressesHaveNoPlanThatFitsIsNotTaken) {
  const Stats stats = settle_under([](double alpha) { return alpha <= 0.125 ? 100 : 101; });
  EXPECT_LE(stats.alpha, 0.125);
  EXPECT_EQ(stats.plan.value().height_bytes, 100);
}

TEST(AutoAlpha, AShareThatIsPlannedAfterItWasChosenIsGivenUpForTheNextBest) {
  int asked = 0;
  double last = -1;
  const Stats stats = settle_under([&](double alpha) {
    asked = alpha == last ? asked + 1 : 0;
    last = alpha;
    // Nothing is planned while shares are compared.
    return asked < 3 ? 0 : alpha > 0.125 ? 101 : 99;
  });
  EXPECT_LE(stats.alpha, 0.125);
  EXPECT_EQ(stats.plan.value().height_bytes, 99);
}

TEST(AutoAlpha, WhereNotEvenNoSwappingFitsThePlanSaysSo) {
  const Stats stats = settle_under([](double) { return 101; });
  EXPECT_EQ(stats.alpha, 0);
  EXPECT_FALSE(stats.plan.value().fits());
}

TEST(AutoAlpha, AChoiceWhoseStepsNeverGetAPlanStands) {
  const Stats stats = settle_under([](double) { return 0; });
  EXPECT_EQ(stats.plan.value().height_bytes, 0);
  EXPECT_NE(stats.alpha_limit, "device");
}

}  // namespace
}  // namespace ebbtide::offload
