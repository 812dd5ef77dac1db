#include "profiler/trace_writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/profiler/trace_samples.h"

namespace ebbtide {
namespace {

using testing_support::allocation;
using testing_support::read_all;
using testing_support::read_bytes;
using testing_support::TemporaryPath;

std::unique_ptr<TraceWriter> open_writer(const std::string& path, EventRing& ring) {
  Result<std::unique_ptr<TraceWriter>> opened = TraceWriter::open(path, ring);
  EXPECT_TRUE(opened.ok()) << opened.error().message;
  return std::move(opened).value();
}

TEST(TraceWriter, WhatFourThreadsRecordIsReadBackWhole) {
  const TemporaryPath path;
  EventRing ring;
  auto writer = open_writer(path.string(), ring);
  std::vector<std::thread> threads;
  for (std::uint32_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&ring, t] {
      for (std::uint64_t i = 0; i < 5000; ++i) {
        EventRecord event = allocation(i, static_cast<std::int64_t>(t));
        event.thread = t;
        ring.record(event);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(writer->close().ok());
  EXPECT_FALSE(ring.is_enabled());

  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok()) << reader.error().message;
  const auto events = read_all(reader.value());
  EXPECT_EQ(reader.value().end(), TraceEnd::kComplete);
  EXPECT_EQ(reader.value().lost(), 0U);
  ASSERT_EQ(events.size(), 20'000U);
  std::vector<std::uint64_t> next(5, 0);
  for (std::size_t i = 0; i < events.size(); ++i) {
    ASSERT_EQ(events[i].tick, i);
    ASSERT_EQ(events[i].address, next[events[i].thread]++);
    ASSERT_EQ(events[i].bytes, static_cast<std::int64_t>(events[i].thread));
  }
}

TEST(TraceWriter, FlushBringsAllEarlierEventsToTheFile) {
  const TemporaryPath path;
  EventRing ring;
  auto writer = open_writer(path.string(), ring);
  for (std::size_t round = 1; round <= 3; ++round) {
    for (std::uint64_t i = 0; i < 1000; ++i) ring.record(allocation(i, 1));
    ASSERT_TRUE(writer->flush().ok());
    auto reader = TraceReader::open(path.string());
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ(read_all(reader.value()).size(), 1000 * round);
    EXPECT_EQ(reader.value().end(), TraceEnd::kTruncated);  // still being written
  }
}

TEST(TraceWriter, TotalsCountTheEventsThatWereLost) {
  const TemporaryPath path;
  EventRing ring(4);
  for (int i = 0; i < 10; ++i) ring.record(allocation(1, 1));
  ASSERT_TRUE(open_writer(path.string(), ring)->close().ok());
  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(read_all(reader.value()).size(), 4U);
  EXPECT_EQ(reader.value().lost(), 6U);
}

TEST(TraceWriter, CloseTwiceAndFlushAfterCloseDoNothingMore) {
  const TemporaryPath path;
  EventRing ring;
  auto writer = open_writer(path.string(), ring);
  ring.record(allocation(1, 1));
  ASSERT_TRUE(writer->close().ok());
  const std::string bytes = read_bytes(path.string());
  EXPECT_TRUE(writer->flush().ok());
  EXPECT_TRUE(writer->close().ok());
  writer.reset();
  EXPECT_EQ(read_bytes(path.string()), bytes);
}

TEST(TraceWriter, AnUnwritablePathIsOneClearLine) {
  EventRing ring;
  const auto opened = TraceWriter::open("/nonexistent/run.ebb", ring);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kSystem);
  EXPECT_EQ(opened.error().message,
            "cannot create trace /nonexistent/run.ebb: No such file or directory");
}

TEST(TraceWriter, AFullDiskEndsTheTraceAndNotTheProgram) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "this machine has no /dev/full";
  EventRing ring;
  const auto opened = TraceWriter::open("/dev/full", ring);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().message, "cannot write trace /dev/full: No space left on device");
}

TEST(TraceWriter, AFailureWhileWritingIsReportedByFlushAndClose) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  signal(SIGPIPE, SIG_IGN);
  EventRing ring;
  auto writer = open_writer("/proc/self/fd/" + std::to_string(ends[1]), ring);
  ::close(ends[0]);
  ring.record(allocation(1, 1));
  const Status flushed = writer->flush();
  ASSERT_FALSE(flushed.ok());
  EXPECT_NE(flushed.error().message.find("Broken pipe"), std::string::npos);
  EXPECT_FALSE(ring.is_enabled());
  EXPECT_FALSE(writer->close().ok());
  ::close(ends[1]);
}

TEST(TraceWriter, ASecondWriterOfTheSameFileIsRefusedUntilTheFirstHasClosed) {
  const TemporaryPath path;
  EventRing ring;
  EventRing second_ring;
  auto writer = open_writer(path.string(), ring);
  const auto second = TraceWriter::open(path.string(), second_ring);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find("is being written by another process"), std::string::npos);
  ASSERT_TRUE(writer->close().ok());
  EXPECT_TRUE(TraceWriter::open(path.string(), second_ring).ok());
}

TEST(TraceWriter, AForkedChildLeavesTheFileOfItsParentAlone) {
  const TemporaryPath path;
  EventRing ring;
  auto writer = open_writer(path.string(), ring);
  ring.record(allocation(1, 1));
  ASSERT_TRUE(writer->flush().ok());
  const std::string before = read_bytes(path.string());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ring.record(allocation(2, 2));
    const bool flushed = writer->flush().ok();
    const bool closed = writer->close().ok();
    writer.reset();
    _exit(flushed && closed ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(read_bytes(path.string()), before);
  ring.record(allocation(3, 3));
  ASSERT_TRUE(writer->close().ok());
  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok());
  const auto events = read_all(reader.value());
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].address, 3U);
  EXPECT_EQ(reader.value().end(), TraceEnd::kComplete);
}

TEST(TraceWriter, ClosingWhileOthersRecordKeepsTheFileWhole) {
  const TemporaryPath path;
  EventRing ring;
  auto writer = open_writer(path.string(), ring);
  std::atomic<bool> stop{false};
  std::thread recorder([&] {
    while (!stop.load()) ring.record(allocation(1, 1));
  });
  ASSERT_TRUE(writer->flush().ok());
  ASSERT_TRUE(writer->close().ok());
  stop = true;
  recorder.join();
  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok());
  const auto events = read_all(reader.value());
  EXPECT_EQ(reader.value().end(), TraceEnd::kComplete) << reader.value().damage();
  EXPECT_EQ(events.size(), ring.drained());
}

}  // namespace
}  // namespace ebbtide
