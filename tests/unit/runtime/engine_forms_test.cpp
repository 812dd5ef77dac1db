// Rounds whose mark tells their form: see Note [Gaps] in round_server.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "allocator/runtime/engine.h"
#include "tests/unit/runtime/simulated_adaptor.h"

namespace ebbtide::simulation {
namespace {

constexpr Bytes kPiece{16 * kMiB.value};

// A round that is cut into `count` pieces, three tensors each, of which one stays to the end. `kept` more stay for good.
void run_in_pieces(SimulatedAdaptor& adaptor, std::uint64_t count, int kept = 0) {
  adaptor.engine().settle();
  adaptor.engine().mark(MarkKind::kForward, count << 48 | 0x7f00);
  std::vector<TensorId> stay;
  for (std::uint64_t i = 0; i < count; ++i) {
    stay.push_back(adaptor.allocate(kPiece));
    free_all(adaptor, {adaptor.allocate(Bytes{3 * kPiece.value}), adaptor.allocate(Bytes{2 * kPiece.value})});
  }
  in_backward = true;
  adaptor.free(adaptor.allocate(kPiece));
  for (int i = 0; i < kept; ++i) adaptor.allocate(Bytes{kPiece.value / 2});
  in_backward = false;
  free_all(adaptor, stay);
}

TEST(EngineForms, RoundsWithFormsAreServedFromTheArenaWhetherKnownOrNot) {
  SimulatedAdaptor adaptor;
  std::uint64_t most = 0;
  for (const std::uint64_t count : {4U, 7U, 5U, 9U, 2U, 6U, 3U, 8U}) {
    run_in_pieces(adaptor, count);
    most = std::max(most, count);
    const std::int64_t needed = static_cast<std::int64_t>(most + 5) * kPiece.value;
    EXPECT_LE(adaptor.range().extent(), Bytes{needed}) << count << " pieces";
  }
  const Counters counters = adaptor.engine().snapshot().counters;
  EXPECT_EQ(counters.diverged.requests + counters.unplanned.requests, 0);
  EXPECT_GT(counters.gap.requests, 0);
  expect_no_fault(adaptor);
}

TEST(EngineForms, AFormThatWasSeenIsPlanned) {
  SimulatedAdaptor adaptor;
  for (const std::uint64_t count : {4U, 7U, 4U, 7U}) run_in_pieces(adaptor, count);
  const Counters before = adaptor.engine().snapshot().counters;
  run_in_pieces(adaptor, 4);
  run_in_pieces(adaptor, 7);
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_EQ(after.planned.requests - before.planned.requests, 3 * (4 + 7) + 2);
  expect_no_fault(adaptor);
}

// What is made in the first round, of a form, lies in the arena; alive for good, it is no resident.
TEST(EngineForms, WhatStaysInTheArenaForGoodIsNoReasonToLearnARoundAgain) {
  SimulatedAdaptor adaptor;
  run_in_pieces(adaptor, 4, 1);
  const auto learnt_after = [&](int rounds) {
    for (int i = 0; i < rounds; ++i) {
      adaptor.engine().mark(MarkKind::kOptimizer, 9);  // asks for nothing: the next round begins in its place
      run_in_pieces(adaptor, 4);
    }
    adaptor.engine().settle();
    return adaptor.engine().snapshot().plans;
  };
  const std::int64_t settled = learnt_after(3);
  EXPECT_LE(settled, 3);
  EXPECT_EQ(learnt_after(8), settled);
  expect_no_fault(adaptor);
}

// There is no gap for it below the plan's height.
TEST(EngineForms, AFormsRoundKeepsItsPlanWhereSomethingSmallComesThatNobodyExpects) {
  SimulatedAdaptor adaptor;
  const auto run = [&](bool has_more) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, std::uint64_t{3} << 48 | 0x7f00);
    const std::int64_t before = adaptor.engine().snapshot().counters.planned.requests;
    std::vector<TensorId> alive;
    for (int i = 0; i < 12; ++i) {
      if (has_more && i == 4) alive.push_back(adaptor.allocate(Bytes{kPiece.value * 3 / 4}));
      alive.push_back(adaptor.allocate(kPiece));
    }
    free_all(adaptor, alive);
    return adaptor.engine().snapshot().counters.planned.requests - before;
  };
  run(false);
  EXPECT_EQ(run(false), 12);
  EXPECT_EQ(run(true), 12);
  expect_no_fault(adaptor);
}

TEST(EngineForms, WhatAFormsFirstRoundTookBeyondItsPlanIsGivenBack) {
  SimulatedAdaptor adaptor;
  const Bytes unit{16 * kMiB.value};
  adaptor.engine().mark(MarkKind::kOptimizer, 9);
  adaptor.free(adaptor.allocate(unit));
  adaptor.engine().mark(MarkKind::kForward, std::uint64_t{3} << 48 | 0x7f00);
  const TensorId early = adaptor.allocate(Bytes{10 * unit.value});
  const TensorId stays = adaptor.allocate(unit);
  adaptor.free(early);
  const TensorId late = adaptor.allocate(Bytes{11 * unit.value});  // larger than the gap
  EXPECT_GE(adaptor.range().extent(), Bytes{22 * unit.value});
  free_all(adaptor, {stays, late});
  adaptor.engine().mark(MarkKind::kOptimizer, 9);
  EXPECT_EQ(adaptor.range().extent(), Bytes{12 * unit.value});
  expect_no_fault(adaptor);
}

// In the arena it would lie in the way of every plan.
TEST(EngineForms, WhatALibraryKeepsForGoodGoesUpstream) {
  static bool is_workspace = false;
  static int asked = 0;
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.engine.is_for_workspace = [](Bytes) { return ++asked, is_workspace; };
  SimulatedAdaptor adaptor(options);
  const auto went_upstream = [&](Bytes size, bool is_for_workspace) {
    const std::int64_t before = adaptor.engine().snapshot().counters.unplanned.requests;
    is_workspace = is_for_workspace;
    adaptor.allocate(size);
    return adaptor.engine().snapshot().counters.unplanned.requests - before == 1;
  };
  adaptor.engine().mark(MarkKind::kForward, std::uint64_t{3} << 48 | 0x7f00);
  EXPECT_TRUE(went_upstream(Bytes{32 * kMiB.value}, true));
  EXPECT_FALSE(went_upstream(Bytes{32 * kMiB.value}, false));
  const int before = asked;
  EXPECT_FALSE(went_upstream(Bytes{64 * 1024}, true)) << "too small to ask for whom it is";
  EXPECT_FALSE(went_upstream(kGiB, true)) << "too large";
  EXPECT_EQ(asked, before);
  expect_no_fault(adaptor);
}

TEST(EngineForms, WhereTheArenaCannotGrowRoundsWithFormsGoUpstream) {
  SimulatedAdaptor adaptor;
  adaptor.range().set_capacity(Bytes{4 * kPiece.value});
  for (const std::uint64_t count : {4U, 7U, 5U}) run_in_pieces(adaptor, count);
  EXPECT_LE(adaptor.range().extent(), Bytes{4 * kPiece.value});
  EXPECT_GT(adaptor.engine().snapshot().counters.diverged.requests, 0);
  expect_no_fault(adaptor);
}

}  // namespace
}  // namespace ebbtide::simulation
