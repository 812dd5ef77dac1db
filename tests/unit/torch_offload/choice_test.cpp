// The shares that limits allow, and the search for the fastest.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "hooks/torch_offload/choice.h"
#include "hooks/torch_offload/room.h"

namespace ebbtide::offload {
namespace {

constexpr double kAmple = 1e9;

std::vector<LayerCost> alike(std::size_t layers, double always, double rest) {
  return {layers, LayerCost{always, rest}};
}

void expect_shares(const Shares& found, const std::vector<double>& shares, const char* limit) {
  EXPECT_EQ(found.of_layer, shares);
  EXPECT_EQ(found.limit, limit);
}

TEST(AlphaChoice, MemosShareIsTheClosedForm) {
  // The link carries 5 in a layer's time, 2 go always, the rest is 6: half of it.
  expect_shares(memo_shares(alike(2, 2, 6), {5, kAmple}), {0.5, 0.5}, "link");
  // The host holds 7 for 2 layers: 3.5 each, a quarter of the rest.
  expect_shares(memo_shares(alike(2, 2, 6), {kAmple, 7}), {0.25, 0.25}, "host");
  expect_shares(memo_shares(alike(2, 2, 6), {1, kAmple}), {0, 0}, "link");
  expect_shares(memo_shares(alike(2, 2, 6), {kAmple, kAmple}), {1, 1}, "");
}

TEST(AlphaChoice, MemosShareIsThatOfTheHeaviestLayer) {
  expect_shares(memo_shares({{2, 6}, {1, 3}}, {5, kAmple}), {0.5, 0.5}, "link");
}

TEST(AlphaChoice, EachLayerMayHaveAShareOfItsOwn) {
  // 4 of link beside what goes always: two thirds of a rest of 6, and all of a rest of 3.
  const Shares found = layer_shares({{1, 6}, {1, 3}}, {5, kAmple});
  expect_shares(found, {std::floor(64 * 4.0 / 6) / 64, 1}, "link");
}

TEST(AlphaChoice, WhatTheHostHoldsBeyondWhatGoesAlwaysIsSharedOut) {
  expect_shares(layer_shares(alike(3, 2, 8), {kAmple, 6 + 12}), {1, 0.5, 0}, "host");
  expect_shares(layer_shares(alike(3, 2, 8), {kAmple, 5}), {0, 0, 0}, "host");
}

TEST(AlphaChoice, NothingIsLeftToChooseWithoutARest) {
  expect_shares(memo_shares(alike(2, 2, 0), {1, 1}), {0, 0}, "");
  expect_shares(layer_shares(alike(2, 2, 0), {1, 1}), {1, 1}, "");
}

TEST(AlphaChoice, SharesStayWithinWhatTheDeviceHasLeft) {
  EXPECT_EQ(device_part(30, 20, 20), 0.75);
  EXPECT_EQ(device_part(50, 20, 20), 1);
  EXPECT_EQ(device_part(-1, 20, 20), 0);
  EXPECT_EQ(device_part(16, 20, 20, 4), 0.6) << "what stays is bounded: the rest is for what is on its way";
  EXPECT_EQ(device_part(16, 20, 20, 10), 0.4);
  EXPECT_EQ(device_part(0, 0, 0), 1);
}

TEST(AlphaChoice, SharesInWholePiecesAreNeverMore) {
  // 4.69, 9.375, 14.06 and 18.75 of 10 pieces each.
  const std::vector<double> shares(4, 0.46875);
  EXPECT_EQ(in_pieces(shares, {10, 10, 10, 10}, true), (std::vector{0.4, 0.5, 0.5, 0.4}));
  EXPECT_EQ(in_pieces(shares, {10, 10, 10, 10}, false), std::vector<double>(4, 0.4));
  EXPECT_EQ(in_pieces({0.3, 0.3}, {10, 0}, true), (std::vector{0.3, 0.3})) << "a rounding error costs no piece";
  EXPECT_EQ(in_pieces({1, 1}, {3, 7}, true), (std::vector<double>{1, 1}));
}

TEST(DeviceRoom, NothingSaysWhatTheHostCouldGive) {
  EXPECT_FALSE(headroom(c10::Device(c10::kCPU), 1).has_value());
  EXPECT_FALSE(headroom(c10::Device(c10::kCUDA, 0), 1).has_value()) << "no allocator is there to ask";
}

TEST(DeviceRoom, WhatComesEarlyLeavesATenthOfTheDeviceAndAttentionsBackwardItsRoom) {
  // 6 inputs of 10 are made; 90 of 100 may be used.
  EXPECT_TRUE(has_room({.live = 20, .whole = 100}, 10, 10));
  EXPECT_FALSE(has_room({.live = 20, .whole = 100}, 10, 11));
  EXPECT_FALSE(has_room(c10::Device(c10::kCPU), 1, 0, 0)) << "nothing says how much the host has";
  EXPECT_FALSE(has_room(c10::Device(c10::kCUDA, 0), 1, 0, 0)) << "no allocator is there to ask";
}

struct Found {
  double best;
  std::size_t probes;
};

Found search(const std::function<double(double)>& seconds) {
  AlphaSearch search;
  std::size_t probes = 0;
  while (const auto part = search.following()) {
    search.note(*part, seconds(*part));
    ++probes;
  }
  return {search.best(), probes};
}

TEST(AlphaChoice, TheSearchFindsTheFastestShareInAFewProbes) {
  for (const double fastest : {0.0, 0.25, 0.5, 0.8, 1.0}) {
    SCOPED_TRACE(fastest);
    const Found found = search([&](double part) { return 1 + std::abs(part - fastest); });
    EXPECT_LE(found.probes, AlphaSearch::kMostProbes);
    EXPECT_NEAR(found.best, fastest, 1.0 / 16 + 1e-9);
  }
}

TEST(AlphaChoice, TheSearchStopsWhereNoShareBetweenCouldMatter) {
  EXPECT_EQ(search([](double) { return 1.0; }).best, 0);
  // A straight line: the middle tells that nothing lies below its end.
  const Found line = search([](double part) { return 2 - part; });
  EXPECT_EQ(line.best, 1);
  EXPECT_EQ(line.probes, 3U);
}

TEST(AlphaChoice, OfSharesThatAreAsFastTheSmallestIsChosen) {
  AlphaSearch search;
  for (const auto& [part, seconds] :
       std::map<double, double>{{0, 1.1}, {1, 1.0}, {0.5, 1.004}, {0.25, 1.006}}) {
    search.note(part, seconds);
  }
  EXPECT_EQ(search.best(), 0.5);
}

TEST(AlphaChoice, ARefusedPartAndLargerOnesAreNeverTaken) {
  // The larger the faster, but plans of more than 40 of 64 parts do not fit.
  AlphaSearch search;
  while (const auto part = search.following()) {
    if (*part > 40.0 / 64) {
      search.refuse(*part);
    } else {
      search.note(*part, 2 - *part);
    }
  }
  EXPECT_LE(search.best(), 40.0 / 64);
  EXPECT_GE(search.best(), 32.0 / 64);
  EXPECT_TRUE(search.is_bounded());
  search.refuse(0);
  EXPECT_EQ(search.best(), 0);
  EXPECT_EQ(search.following(), std::nullopt);
}

TEST(AlphaChoice, AShareThatWaitsForCopiesTooLongIsNotTakenThoughItIsTheFastest) {
  AlphaSearch search;
  while (const auto part = search.following()) search.note(*part, 2 - *part, *part > 40.0 / 64 ? 0.03 : 0.005);
  EXPECT_LE(search.best(), 40.0 / 64);
  EXPECT_GE(search.best(), 36.0 / 64);
  EXPECT_TRUE(search.is_late_beyond());
  EXPECT_FALSE(search.is_bounded());
  EXPECT_EQ(search.scaled(0.5).best(), search.best() / 2);
}

TEST(AlphaChoice, BelowAShareThatWaitsTooLongTheSearchGoesOn) {
  // As Qwen3 on an H100 at 64K tokens: the most that the link hides is slower than half of it, what lies between is not.
  const std::map<int, std::pair<double, double>> measured{{0, {3.7775, 0}},       {32, {3.5984, 0}},      {48, {3.5353, 0.0194}},
                                                          {52, {3.524, 0.03}},    {56, {3.5129, 0.0402}}, {64, {3.6271, 0.138}}};
  AlphaSearch search;
  while (const auto part = search.following()) {
    const auto& [seconds, waited] = measured.at(static_cast<int>(*part * 64));
    search.note(*part, seconds, waited);
  }
  EXPECT_EQ(search.best(), 48.0 / 64);
}

TEST(AlphaChoice, WhereEveryShareWaitsTooLongTheFastestIsTaken) {
  AlphaSearch search;
  while (const auto part = search.following()) search.note(*part, 2 - *part, 0.5);
  EXPECT_EQ(search.best(), 1);
  EXPECT_FALSE(search.is_late_beyond());
}

TEST(AlphaChoice, WhatWasMeasuredIsAPartOfALargerShare) {
  AlphaSearch search;
  while (const auto part = search.following()) search.note(*part, 2 - *part);
  ASSERT_EQ(search.best(), 1);
  AlphaSearch larger = search.scaled(0.7);
  EXPECT_EQ(larger.best(), 44.0 / 64);
  EXPECT_EQ(larger.following(), 1);
  larger.note(1, 1.5);  // more does no good
  EXPECT_EQ(larger.best(), 44.0 / 64);
}

TEST(AlphaChoice, WhatWasNeverMeasuredIsHalvedWhileItIsRefused) {
  AlphaSearch search;
  std::vector<double> taken;
  while (search.best() > 0) {
    taken.push_back(search.best());
    search.refuse(search.best());
  }
  EXPECT_EQ(taken, (std::vector<double>{1, 0.5, 0.25, 1.0 / 8, 1.0 / 16, 1.0 / 32, 1.0 / 64}));
}

TEST(AlphaChoice, AFastShareBelowARefusedOneIsBoundedByTimeAlone) {
  AlphaSearch search;
  search.note(0, 2);
  search.note(0.25, 1);
  search.note(0.5, 1.5);
  search.refuse(1);
  EXPECT_EQ(search.best(), 0.25);
  EXPECT_FALSE(search.is_bounded());
}

TEST(AlphaChoice, WithoutAnyMeasurementAllThatTheLimitsAllowStands) {
  EXPECT_EQ(AlphaSearch().best(), 1);
}

}  // namespace
}  // namespace ebbtide::offload
