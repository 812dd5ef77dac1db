#include "profiler/trace_summary.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "tests/unit/profiler/trace_samples.h"

namespace ebbtide {
namespace {

using testing_support::allocation;
using testing_support::other;
using testing_support::random_events;
using testing_support::TemporaryPath;
using testing_support::write_trace;

TraceSummary summarize(const std::vector<EventRecord>& events) {
  TraceSummarizer summarizer;
  summarizer.add(events);
  return summarizer.busiest();
}

TEST(TraceSummary, OfNothingIsZero) {
  const TraceSummary summary = summarize({});
  EXPECT_EQ(summary.events, 0);
  EXPECT_EQ(summary.peak_live, Bytes{0});
  EXPECT_EQ(summary.duration_ns, 0);
}

TEST(TraceSummary, FollowsLiveBytesThroughFrees) {
  const TraceSummary summary =
      summarize({allocation(1, 100), allocation(2, 50), other(Action::kFree, 100, 1),
                 allocation(3, 20, Placement::kPlanned), allocation(1, 40, Placement::kGap),
                 allocation(4, 5, Placement::kDiverged), other(Action::kFree, 50, 2)});
  EXPECT_EQ(summary.allocations, 5);
  EXPECT_EQ(summary.frees, 2);
  EXPECT_EQ(summary.peak_live, Bytes{150});
  EXPECT_EQ(summary.live, Bytes{65});
  EXPECT_EQ(summary.allocated, Bytes{215});
  EXPECT_EQ(summary.planned, Bytes{20});
  EXPECT_EQ(summary.gap, Bytes{40});
  EXPECT_EQ(summary.diverged, Bytes{5});
  EXPECT_EQ(summary.planned_allocations, 1);
  EXPECT_EQ(summary.gap_allocations, 1);
  EXPECT_EQ(summary.diverged_allocations, 1);
}

TEST(TraceSummary, EventsOfNoDeviceMakeNone) {
  EventRecord owner = other(Action::kOwner, 1, 0);
  owner.device = kNoDevice;
  EXPECT_EQ(summarize({owner, owner}).device, 0);
  EXPECT_EQ(summarize({owner, allocation(1, 10)}).events, 1);
}

TEST(TraceSummary, WhatUpstreamTellsIsNotCountedTwice) {
  const TraceSummary summary = summarize({other(Action::kSegmentTaken, 4096, 1), other(Action::kUpstreamAllocate, 10, 1),
                                          allocation(1, 10), other(Action::kFree, 10, 1),
                                          other(Action::kUpstreamFree, 10, 1)});
  EXPECT_EQ(summary.allocations, 1);
  EXPECT_EQ(summary.peak_live, Bytes{10});
  EXPECT_EQ(summary.unknown_frees, 0);
}

TEST(TraceSummary, FreesOfUnknownAddressesAreCountedAndChangeNothing) {
  const TraceSummary summary =
      summarize({other(Action::kFree, 1000, 9), allocation(1, 10), other(Action::kFree, 10, 1),
                 other(Action::kFree, 10, 1)});
  EXPECT_EQ(summary.unknown_frees, 2);
  EXPECT_EQ(summary.frees, 1);
  EXPECT_EQ(summary.live, Bytes{0});
  EXPECT_EQ(summary.peak_live, Bytes{10});
}

TEST(TraceSummary, AnAllocationAtALiveAddressReplacesItsBytes) {
  const TraceSummary summary = summarize({allocation(1, 10), allocation(1, 30)});
  EXPECT_EQ(summary.replaced, 1);
  EXPECT_EQ(summary.live, Bytes{30});
  EXPECT_EQ(summary.peak_live, Bytes{30});
}

TEST(TraceSummary, TakesReservedRoundsPlansAndDurationFromTheirEvents) {
  std::vector<EventRecord> events{other(Action::kReserved, 700), other(Action::kArenaGrow, 900),
                                  other(Action::kReserved, 800), other(Action::kArenaTrim, 5000),
                                  other(Action::kPlan, 600),     other(Action::kRound, 1),
                                  other(Action::kRound, 2),      other(Action::kPlan, 650)};
  events[1].time_ns = 1000;
  events[5].time_ns = 4500;
  const TraceSummary summary = summarize(events);
  EXPECT_EQ(summary.peak_reserved, Bytes{900});
  EXPECT_EQ(summary.rounds, 2);
  EXPECT_EQ(summary.plans, 2);
  EXPECT_EQ(summary.plan_height, Bytes{650});
  EXPECT_EQ(summary.duration_ns, 3500);
}

TEST(TraceSummary, TheArenaAloneIsNotTakenForAllThatIsReserved) {
  EXPECT_EQ(summarize({other(Action::kArenaGrow, 900)}).peak_reserved, Bytes{0});
}

TEST(TraceSummary, IsOfTheDeviceWithMostBytes) {
  std::vector<EventRecord> events{allocation(1, 10), allocation(1, 500), allocation(2, 20)};
  events[0].device = 0;
  events[1].device = 3;
  events[2].device = -1;
  const TraceSummary summary = summarize(events);
  EXPECT_EQ(summary.device, 3);
  EXPECT_EQ(summary.events, 1);
  EXPECT_EQ(summary.allocated, Bytes{500});
}

TEST(TraceSummary, UnknownActionsArePassedOver) {
  const TraceSummary summary = summarize({other(static_cast<Action>(200), 10, 1)});
  EXPECT_EQ(summary.events, 1);
  EXPECT_EQ(summary.allocations, 0);
}

// They come late, and when they happened says nothing of how long the allocator was watched.
TEST(TraceSummary, WhatTheGpuDidIsNoEventOfTheAllocator) {
  EventRecord kernel = other(Action::kKernel, 10, 1);
  kernel.time_ns = 1'000'000;
  EventRecord first = allocation(4096, 512);
  first.time_ns = 10;
  EventRecord second = allocation(8192, 512);
  second.time_ns = 30;
  const TraceSummary summary = summarize({first, kernel, other(Action::kSwapOut, 512, 1), second});
  EXPECT_EQ(summary.events, 2);
  EXPECT_EQ(summary.duration_ns, 20);
  EXPECT_EQ(summary.peak_live, Bytes{1024});
}

TEST(TraceSummary, ForgedSizesNeitherOverflowNorGoBelowZero) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  const TraceSummary summary = summarize(
      {allocation(1, kMost), allocation(2, kMost, Placement::kGap), allocation(3, kLeast),
       other(Action::kReserved, kLeast), other(Action::kPlan, kLeast), other(Action::kFree, 0, 1),
       other(Action::kFree, 0, 2), other(Action::kFree, 0, 3)});
  EXPECT_EQ(summary.allocated, Bytes{kMost});
  EXPECT_EQ(summary.peak_live, Bytes{kMost});
  EXPECT_EQ(summary.live, Bytes{0});
  EXPECT_EQ(summary.peak_reserved, Bytes{0});
  EXPECT_EQ(summary.plan_height, Bytes{0});
}

// The same numbers by the plainest means: for each event the live set is a list that is searched.
struct Naive {
  std::int64_t allocations = 0, frees = 0, unknown = 0, replaced = 0, live = 0, peak = 0;
  std::int64_t reserved = 0, rounds = 0, plans = 0, height = 0;
  std::uint64_t first = 0, last = 0;
  std::array<std::int64_t, 4> count{}, bytes{};
};

Naive recompute(const std::vector<EventRecord>& events, int device) {
  Naive naive;
  std::vector<EventRecord> live;
  for (const EventRecord& event : events) {
    if (event.device != device) continue;
    if (event.time_ns != 0 && naive.first == 0) naive.first = event.time_ns;
    if (event.time_ns != 0) naive.last = event.time_ns;
    const auto same = [&](const EventRecord& held) { return held.address == event.address; };
    if (event.action == Action::kAllocate) {
      ++naive.allocations;
      ++naive.count[static_cast<std::size_t>(event.placement)];
      naive.bytes[static_cast<std::size_t>(event.placement)] += event.bytes;
      naive.replaced += static_cast<std::int64_t>(std::erase_if(live, same));
      live.push_back(event);
    } else if (event.action == Action::kFree) {
      ++(std::erase_if(live, same) == 1 ? naive.frees : naive.unknown);
    } else if (event.action == Action::kRound) {
      ++naive.rounds;
    } else if (event.action == Action::kPlan) {
      ++naive.plans;
      naive.height = event.bytes;
    } else if (event.action == Action::kReserved || event.action == Action::kArenaGrow) {
      naive.reserved = std::max(naive.reserved, event.bytes);
    }
    naive.live = 0;
    for (const EventRecord& held : live) naive.live += held.bytes;
    naive.peak = std::max(naive.peak, naive.live);
  }
  return naive;
}

TEST(TraceSummary, AgreesWithANaiveRecomputationOnRandomEvents) {
  const TemporaryPath path;
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    const auto events = random_events(1000, seed);
    write_trace(path.string(), events, 64, seed);
    const auto result = summarize_trace(path.string());
    ASSERT_TRUE(result.ok());
    const TraceSummary& summary = result.value();
    const Naive naive = recompute(events, summary.device);
    const Naive rival = recompute(events, summary.device == 0 ? -1 : 0);
    const auto total = [](const Naive& of) {
      return of.bytes[0] + of.bytes[1] + of.bytes[2] + of.bytes[3];
    };
    EXPECT_GE(total(naive), total(rival));
    EXPECT_EQ(summary.allocated.value, total(naive));
    EXPECT_EQ(summary.allocations, naive.allocations);
    EXPECT_EQ(summary.frees, naive.frees);
    EXPECT_EQ(summary.unknown_frees, naive.unknown);
    EXPECT_EQ(summary.replaced, naive.replaced);
    EXPECT_EQ(summary.live.value, naive.live);
    EXPECT_EQ(summary.peak_live.value, naive.peak);
    EXPECT_EQ(summary.peak_reserved.value, naive.reserved);
    EXPECT_EQ(summary.planned_allocations, naive.count[1]);
    EXPECT_EQ(summary.gap_allocations, naive.count[2]);
    EXPECT_EQ(summary.diverged_allocations, naive.count[3]);
    EXPECT_EQ(summary.planned.value, naive.bytes[1]);
    EXPECT_EQ(summary.gap.value, naive.bytes[2]);
    EXPECT_EQ(summary.diverged.value, naive.bytes[3]);
    EXPECT_EQ(summary.rounds, naive.rounds);
    EXPECT_EQ(summary.plans, naive.plans);
    EXPECT_EQ(summary.plan_height.value, naive.height);
    EXPECT_EQ(summary.duration_ns, static_cast<std::int64_t>(naive.last - naive.first));
    EXPECT_EQ(summary.lost_events, static_cast<std::int64_t>(seed));
    EXPECT_EQ(summary.end, TraceEnd::kComplete);
  }
}

}  // namespace
}  // namespace ebbtide
