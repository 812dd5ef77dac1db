#include "dryrun/core/timeline.h"

#include <gtest/gtest.h>

#include "tests/dryrun/example_speed.h"

namespace ebbtide::dryrun {
namespace {

// A second of matrix products.
constexpr Work kSecond{.activity = Activity::kMatrix, .flops = 50e12};
constexpr double kGigabyte = 1e9;

double stalled(const StreamUse& use, Activity activity) {
  return use.stalled[static_cast<std::size_t>(activity)];
}
double busy(const StreamUse& use, Activity activity) {
  return use.busy[static_cast<std::size_t>(activity)];
}

struct TimelineTest : testing::Test {
  Timeline timeline{example_speed(), /*devices=*/1, /*ranks=*/1, /*keeps_spans=*/true};
  StreamClock& compute = timeline.default_stream(0);
  StreamClock& out = timeline.add_stream(0, false);
  StreamClock& in = timeline.add_stream(0, false);

  void work(StreamClock& stream, int seconds = 1) {
    for (int i = 0; i < seconds; ++i) timeline.run(stream, kSecond, false, "mm");
  }
  void copy_out(double gigabytes) {
    timeline.copy(out, Direction::kOut, gigabytes * kGigabyte, /*is_pinned=*/true,
                  /*blocks=*/false);
  }
  void copy_in(double gigabytes) {
    timeline.copy(in, Direction::kIn, gigabytes * kGigabyte, true, false);
  }
  double end(StreamClock& stream) { return timeline.end_of(stream).time; }
};

TEST_F(TimelineTest, AStreamsWorkIsInOrderAndTheHostDoesNotWait) {
  work(compute, 3);
  EXPECT_DOUBLE_EQ(end(compute), 3);
  EXPECT_DOUBLE_EQ(timeline.host_now(), 0);
  timeline.hold_host(timeline.end_of(compute));
  EXPECT_DOUBLE_EQ(timeline.host_now(), 3);
}

TEST_F(TimelineTest, StreamsRunBesideEachOtherUntilOneWaitsForAnEvent) {
  // GIVEN 1 s of work, then 20 GB that leave for 2 s while 3 s more are computed
  work(compute);
  timeline.wait(out, timeline.record(compute));
  copy_out(20);
  EXPECT_DOUBLE_EQ(end(out), 3);
  const Moment left = timeline.record(out);
  work(compute, 3);
  // WHEN what comes then waits for the copy, THEN there is no stall
  timeline.wait(compute, left);
  work(compute);
  EXPECT_DOUBLE_EQ(end(compute), 5);
  EXPECT_DOUBLE_EQ(stalled(timeline.total().use, Activity::kCopyOut), 0);
}

TEST_F(TimelineTest, AStallIsCountedByWhatIsWaitedFor) {
  // 30 GB take 3 s, beside 1 s of work: 2 s are waited
  timeline.wait(out, timeline.record(compute));
  copy_out(30);
  work(compute);
  timeline.wait(compute, timeline.record(out));
  work(compute);
  const StreamUse use = timeline.total().use;
  EXPECT_DOUBLE_EQ(stalled(use, Activity::kCopyOut), 2);
  EXPECT_DOUBLE_EQ(stalled(use, Activity::kCopyIn), 0);
  EXPECT_DOUBLE_EQ(busy(use, Activity::kMatrix), 2);
  EXPECT_DOUBLE_EQ(timeline.total().seconds, 4);
}

TEST_F(TimelineTest, ACollectiveIsHiddenBesideWorkAndStallsWhoWaitsForIt) {
  StreamClock& ring = timeline.add_stream(0, false);
  constexpr CollectiveCost kTwoSeconds{.latency = 0.5, .transfer = 1.5, .sent_bytes = kGigabyte};
  timeline.wait(ring, timeline.record(compute));
  timeline.communicate(ring, kTwoSeconds, "all-reduce");
  work(compute);
  timeline.wait(compute, timeline.record(ring));
  work(compute);
  const Step total = timeline.total();
  EXPECT_DOUBLE_EQ(total.seconds, 3);
  EXPECT_DOUBLE_EQ(stalled(total.use, Activity::kCollective), 1);
  EXPECT_DOUBLE_EQ(total.machine.collective_seconds, 2);
  EXPECT_DOUBLE_EQ(total.machine.collective_bytes, kGigabyte);
}

TEST_F(TimelineTest, CollectivesOfADeviceShareItsLinksButNotTheirLatency) {
  StreamClock& first = timeline.add_stream(0, false);
  StreamClock& second = timeline.add_stream(0, false);
  StreamClock& third = timeline.add_stream(0, false);
  constexpr CollectiveCost kCost{.latency = 0.5, .transfer = 1};
  timeline.communicate(first, kCost, "");
  timeline.communicate(second, kCost, "");
  EXPECT_DOUBLE_EQ(end(first), 1.5);
  EXPECT_DOUBLE_EQ(end(second), 2.5);
  // The network is another link.
  timeline.communicate(third, {.latency = 0.5, .transfer = 1, .fabric = Fabric::kNetwork}, "");
  EXPECT_DOUBLE_EQ(end(third), 1.5);
}

TEST_F(TimelineTest, AThreadThatAsksForEverHasWaited) {
  work(compute, 1000);
  const Moment last = timeline.end_of(compute);
  int questions = 1;
  while (!timeline.is_over(last)) ++questions;
  EXPECT_LT(questions, 20000);
  EXPECT_DOUBLE_EQ(timeline.host_now(), 1000);
}

TEST_F(TimelineTest, CopiesOfOneDirectionFollowEachOther) {
  StreamClock& second = timeline.add_stream(0, false);
  copy_out(10);
  timeline.copy(second, Direction::kOut, 10 * kGigabyte, true, false);
  EXPECT_DOUBLE_EQ(end(out), 1);
  EXPECT_DOUBLE_EQ(end(second), 2);
}

TEST_F(TimelineTest, BothDirectionsShareWhatTheLinkCarriesTogether) {
  // GIVEN 20 GB going out for 2 s at 10 GB/s; 16 GB/s are all that both get, so 6 GB/s are left
  copy_out(20);
  copy_in(22);
  // THEN 12 GB come in during these 2 s, the other 10 GB in the second after them
  EXPECT_DOUBLE_EQ(end(out), 2);
  EXPECT_DOUBLE_EQ(end(in), 3);
}

TEST_F(TimelineTest, ACopyOfOrdinaryMemoryIsSlowAndHoldsTheHost) {
  timeline.copy(in, Direction::kIn, 2 * kGigabyte, /*is_pinned=*/false, /*blocks=*/true);
  EXPECT_DOUBLE_EQ(timeline.host_now(), 1);  // a tenth of 20 GB/s
}

TEST(TimelineLink, ProcessesOnDevicesBehindOneLinkShareIt) {
  for (const int ranks : {1, 2, 8}) {
    Timeline timeline(example_speed(), 1, ranks, false);
    StreamClock& stream = timeline.default_stream(0);
    timeline.copy(stream, Direction::kOut, 10 * kGigabyte, true, false);
    EXPECT_DOUBLE_EQ(timeline.end_of(stream).time, ranks == 1 ? 1 : 2)
        << ranks;  // two devices a link
  }
}

TEST(TimelineLink, DevicesOfOneProcessTakeTurnsOnALink) {
  Timeline timeline(example_speed(), /*devices=*/3, 1, false);
  for (int device = 0; device < 3; ++device) {
    timeline.copy(timeline.default_stream(device), Direction::kOut, 10 * kGigabyte, true, false);
  }
  EXPECT_DOUBLE_EQ(timeline.end_of_device(0).time, 1);
  EXPECT_DOUBLE_EQ(timeline.end_of_device(1).time, 2);  // behind the same switch as device 0
  EXPECT_DOUBLE_EQ(timeline.end_of_device(2).time, 1);
}

TEST_F(TimelineTest, ADeviceThatWaitsForTheHostIsStarvedNotStalled) {
  work(compute);
  timeline.host_works(4);
  work(compute);
  const Step total = timeline.total();
  EXPECT_DOUBLE_EQ(total.seconds, 5);
  EXPECT_DOUBLE_EQ(total.use.starved, 3);
}

TEST(Timeline, AProductBesideACollectiveHasTheMultiprocessorsThatAreLeft) {
  // GIVEN a collective of 2 s that keeps 2 of 8 multiprocessors
  DeviceSpeed speed = example_speed();
  speed.multiprocessors = 8;
  speed.peer_channels = 2;
  Timeline timeline(speed, 1, 1, false);
  StreamClock& compute = timeline.default_stream(0);
  timeline.communicate(timeline.add_stream(0, false), {.transfer = 2}, "all-gather");
  // WHEN two products of a second run, THEN three quarters of the device have done 1.5 s by then
  timeline.run(compute, kSecond, false, "mm");
  EXPECT_DOUBLE_EQ(timeline.end_of(compute).time, 4.0 / 3);
  timeline.run(compute, kSecond, false, "mm");
  EXPECT_DOUBLE_EQ(timeline.end_of(compute).time, 2.5);
}

TEST_F(TimelineTest, TheHostWaitsWhereTheLaunchQueueIsFull) {
  work(compute, 1024);
  EXPECT_DOUBLE_EQ(timeline.host_now(), 0);
  work(compute);
  EXPECT_DOUBLE_EQ(timeline.host_now(), 1);  // until the first of them was over
}

TEST_F(TimelineTest, AskingWhetherSomethingIsOverComesToAnEnd) {
  timeline.run(compute, {.bytes = 5e7}, false, "");  // 0.1 ms
  const Moment moment = timeline.record(compute);
  int asked = 0;
  while (!timeline.is_over(moment)) ++asked;
  EXPECT_GT(asked, 10);
  EXPECT_LT(asked, 1000);
}

TEST_F(TimelineTest, BlockingStreamsAreInOrderWithTheDefaultStream) {
  StreamClock& blocking = timeline.add_stream(0, /*waits_for_default=*/true);
  work(compute);
  work(blocking);
  EXPECT_DOUBLE_EQ(end(blocking), 2);
  work(compute);
  EXPECT_DOUBLE_EQ(end(compute), 3);
}

TEST_F(TimelineTest, AStepIsWhatHappenedSinceTheOneBefore) {
  work(compute, 2);
  timeline.end_step();
  work(compute);
  copy_out(50);
  timeline.add_tokens(7);
  timeline.end_step();
  const std::vector<Step> steps = timeline.steps();
  ASSERT_EQ(steps.size(), 2U);
  EXPECT_DOUBLE_EQ(steps[0].seconds, 2);
  EXPECT_DOUBLE_EQ(steps[1].seconds, 3);  // the copy began with the program and took 5 s
  EXPECT_DOUBLE_EQ(steps[1].machine.flops, 50e12);
  EXPECT_DOUBLE_EQ(steps[1].machine.forward_peak_seconds, 0.5);
  EXPECT_DOUBLE_EQ(steps[1].machine.out_bytes, 50e9);
  EXPECT_DOUBLE_EQ(steps[1].machine.tokens, 7);
  EXPECT_DOUBLE_EQ(steps[1].use.busy[0], 1);
}

TEST_F(TimelineTest, WorkThatBeganBesideTheLastStepIsNoShareOfTheNext) {
  // GIVEN a step of 10 s, and another stream that begins the next step's 11 s beside it
  work(compute, 10);
  timeline.end_step();
  work(out, 11);
  // WHEN that step ends a second after the one before THEN this second is all that it had
  timeline.end_step();
  EXPECT_DOUBLE_EQ(timeline.steps()[1].seconds, 1);
  EXPECT_DOUBLE_EQ(busy(timeline.steps()[1].use, Activity::kMatrix), 1);
  EXPECT_DOUBLE_EQ(end(out), 11);
}

TEST_F(TimelineTest, SpansOfOneKindAreOneAndStallsAreAmongThem) {
  copy_out(20);
  timeline.wait(compute, timeline.record(out));
  work(compute, 2);
  const std::vector<Span> spans = timeline.spans();
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[0].activity, Activity::kCopyOut);
  EXPECT_TRUE(spans[1].is_stall);
  EXPECT_DOUBLE_EQ(spans[1].end, 2);
  EXPECT_DOUBLE_EQ(spans[2].begin, 2);
  EXPECT_DOUBLE_EQ(spans[2].end, 4);
  EXPECT_STREQ(spans[2].name, "mm");
}

}  // namespace
}  // namespace ebbtide::dryrun
