#include "dryrun/core/capture.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "dryrun/core/stream_clock.h"

namespace ebbtide::dryrun {
namespace {

struct CaptureTest : testing::Test {
  Captures captures;
  StreamClock first{1, 0, false}, second{2, 0, false}, launched_on{3, 0, false};
  std::vector<int> done;

  bool add(StreamClock& stream, int number) {
    return captures.add(stream, [this, number](StreamClock& on) {
      EXPECT_EQ(&on, &launched_on);
      done.push_back(number);
    });
  }
  CaptureStatus status(const StreamClock& stream) { return captures.view(stream).status; }
  CaptureError end(StreamClock& stream) {
    std::shared_ptr<const Graph> graph;
    const CaptureError error = captures.end(stream, graph);
    EXPECT_EQ(graph != nullptr, error == CaptureError::kNone);
    if (graph != nullptr) launch(*graph, launched_on);
    return error;
  }
  // `stream` waits for all that `by` has captured.
  CaptureError join(StreamClock& stream, StreamClock& by) { return captures.wait(stream, captures.record(by), true); }
};

TEST_F(CaptureTest, WhatIsCapturedIsDoneByEachLaunchInItsOrder) {
  EXPECT_FALSE(add(first, 0));
  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  EXPECT_TRUE(add(first, 1));
  EXPECT_TRUE(add(first, 2));
  EXPECT_FALSE(add(second, 3));
  EXPECT_TRUE(done.empty());
  std::shared_ptr<const Graph> graph;
  ASSERT_EQ(captures.end(first, graph), CaptureError::kNone);
  launch(*graph, launched_on);
  launch(*graph, launched_on);
  EXPECT_EQ(done, (std::vector{1, 2, 1, 2}));
  EXPECT_FALSE(add(first, 4));
  EXPECT_FALSE(captures.any());
}

TEST_F(CaptureTest, ItsNumberIsNeverUsedAgain) {
  EXPECT_EQ(captures.view(first).id, 0U);
  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  const std::uint64_t id = captures.view(first).id;
  EXPECT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kIllegalState);
  EXPECT_EQ(end(first), CaptureError::kNone);
  EXPECT_EQ(end(first), CaptureError::kIllegalState);
  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  EXPECT_NE(captures.view(first).id, id);
}

TEST_F(CaptureTest, PartsOfSomethingAreKeptWithIt) {
  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  Deeds parts;
  {
    const Captures::Inside inside(parts);
    add(first, 1);
  }
  add(first, 2);
  EXPECT_EQ(parts.size(), 1U);
  EXPECT_EQ(end(first), CaptureError::kNone);
  EXPECT_EQ(done, std::vector{2});
}

TEST_F(CaptureTest, AStreamThatWaitsForItsEventJoinsAndMustBeJoinedAgain) {
  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  add(first, 1);
  ASSERT_EQ(join(second, first), CaptureError::kNone);
  EXPECT_EQ(captures.view(second).id, captures.view(first).id);
  add(second, 2);
  ASSERT_EQ(join(first, second), CaptureError::kNone);
  EXPECT_EQ(end(first), CaptureError::kNone);
  EXPECT_EQ(done, (std::vector{1, 2}));
  EXPECT_EQ(status(second), CaptureStatus::kNone);

  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  join(second, first);
  join(first, second);
  add(second, 3);  // after the event that the first waits for
  EXPECT_EQ(end(first), CaptureError::kUnjoined);
  EXPECT_FALSE(captures.any());
}

TEST_F(CaptureTest, WhatWouldWaitForItMakesItInvalid) {
  const auto breaks = [&](auto breaking, CaptureError expected) {
    ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
    EXPECT_EQ(breaking(), expected);
    EXPECT_EQ(status(first), CaptureStatus::kInvalidated);
    EXPECT_TRUE(add(first, 9));
    EXPECT_EQ(end(first), CaptureError::kInvalidated);
    EXPECT_TRUE(done.empty());
  };
  breaks([&] { return captures.synchronise(first); }, CaptureError::kUnsupported);
  breaks([&] { return captures.do_unsafe(); }, CaptureError::kUnsupported);
  breaks([&] { return captures.ask(captures.record(first)); }, CaptureError::kCapturedEvent);
  breaks([&] { return captures.wait(first, {}, /*is_recorded=*/true); }, CaptureError::kIsolation);
  breaks([&] { join(second, first); return captures.end(second, *std::make_unique<std::shared_ptr<const Graph>>()); },
         CaptureError::kUnmatched);
}

TEST_F(CaptureTest, AnEventThatWasNeverRecordedIsNotWaitedFor) {
  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  EXPECT_EQ(captures.wait(first, {}, /*is_recorded=*/false), CaptureError::kNone);
  EXPECT_EQ(end(first), CaptureError::kNone);
}

TEST_F(CaptureTest, AnEventOfACaptureThatIsOverHasNoTime) {
  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  const CapturedPoint point = captures.record(first);
  EXPECT_EQ(end(first), CaptureError::kNone);
  EXPECT_EQ(captures.wait(second, point, true), CaptureError::kCapturedEvent);
  EXPECT_EQ(captures.ask(point), CaptureError::kCapturedEvent);
}

TEST_F(CaptureTest, TwoDoNotBecomeOne) {
  ASSERT_EQ(captures.begin(first, CaptureMode::kGlobal), CaptureError::kNone);
  ASSERT_EQ(captures.begin(second, CaptureMode::kGlobal), CaptureError::kNone);
  EXPECT_EQ(join(second, first), CaptureError::kMerge);
  EXPECT_EQ(status(first), CaptureStatus::kInvalidated);
  EXPECT_EQ(end(first), CaptureError::kInvalidated);
  EXPECT_EQ(end(second), CaptureError::kInvalidated);
}

TEST_F(CaptureTest, ModesSayWhoMayDoWhatIsUnsafe) {
  const auto unsafe_elsewhere = [&] {
    CaptureError error = CaptureError::kNone;
    std::thread([&] { error = captures.do_unsafe(); }).join();
    return error;
  };
  for (const CaptureMode mode : {CaptureMode::kGlobal, CaptureMode::kThreadLocal, CaptureMode::kRelaxed}) {
    ASSERT_EQ(captures.begin(first, mode), CaptureError::kNone);
    const bool is_global = mode == CaptureMode::kGlobal;
    EXPECT_EQ(unsafe_elsewhere(), is_global ? CaptureError::kUnsupported : CaptureError::kNone);
    EXPECT_EQ(end(first), is_global ? CaptureError::kInvalidated : CaptureError::kNone);

    ASSERT_EQ(captures.begin(first, mode), CaptureError::kNone);
    const bool is_relaxed = mode == CaptureMode::kRelaxed;
    EXPECT_EQ(captures.do_unsafe(), is_relaxed ? CaptureError::kNone : CaptureError::kUnsupported);
    EXPECT_EQ(end(first), is_relaxed ? CaptureError::kNone : CaptureError::kInvalidated);

    ASSERT_EQ(captures.begin(first, mode), CaptureError::kNone);
    const CaptureMode before = Captures::exchange_thread_mode(CaptureMode::kRelaxed);
    EXPECT_EQ(captures.do_unsafe(), CaptureError::kNone);  // the thread says that it knows
    Captures::exchange_thread_mode(before);
    EXPECT_EQ(end(first), CaptureError::kNone);
  }
}

TEST_F(CaptureTest, ItEndsOnTheThreadItBeganOn) {
  ASSERT_EQ(captures.begin(first, CaptureMode::kThreadLocal), CaptureError::kNone);
  std::thread([&] { EXPECT_EQ(end(first), CaptureError::kWrongThread); }).join();
  EXPECT_EQ(end(first), CaptureError::kInvalidated);
}

}  // namespace
}  // namespace ebbtide::dryrun
