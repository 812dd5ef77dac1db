#include "profiler/trace_reader.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "profiler/trace_summary.h"
#include "tests/unit/profiler/trace_samples.h"

namespace ebbtide {
namespace {

using testing_support::random_events;
using testing_support::read_all;
using testing_support::read_bytes;
using testing_support::TemporaryPath;
using testing_support::write_bytes;
using testing_support::write_trace;

constexpr std::size_t kEvents = 20;
constexpr std::size_t kPerBlock = 8;
constexpr std::size_t kBlockBytes = sizeof(Frame) + kPerBlock * sizeof(EventRecord);

std::string small_trace() {
  const TemporaryPath path;
  write_trace(path.string(), random_events(kEvents, 1), kPerBlock, 5);
  return read_bytes(path.string());
}

// What is wrong with a file of these bytes, in one line; "" if it can be opened.
std::string refusal(const std::string& bytes, const std::string& path) {
  write_bytes(path, bytes);
  const auto reader = TraceReader::open(path);
  if (reader.ok()) return "";
  EXPECT_EQ(reader.error().code, ErrorCode::kBadTrace);
  EXPECT_EQ(reader.error().message.find('\n'), std::string::npos);
  EXPECT_NE(reader.error().message.find(path), std::string::npos);
  return reader.error().message;
}

TEST(TraceReader, ReadsBackEveryFieldOfEveryEvent) {
  const TemporaryPath path;
  const auto written = random_events(kEvents, 2);
  write_trace(path.string(), written, kPerBlock, 5);
  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok());
  const auto read = read_all(reader.value());
  ASSERT_EQ(read.size(), written.size());
  EXPECT_EQ(std::memcmp(read.data(), written.data(), read.size() * sizeof(EventRecord)), 0);
  EXPECT_EQ(reader.value().end(), TraceEnd::kComplete);
  EXPECT_EQ(reader.value().damage(), "");
  EXPECT_EQ(reader.value().lost(), 5U);
  EXPECT_EQ(reader.value().records(), kEvents);
  EXPECT_TRUE(reader.value().next().empty());
}

TEST(TraceReader, ATraceWithoutEventsIsComplete) {
  const TemporaryPath path;
  write_trace(path.string(), {});
  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok());
  EXPECT_TRUE(reader.value().next().empty());
  EXPECT_EQ(reader.value().end(), TraceEnd::kComplete);
}

TEST(TraceReader, WhatIsNoTraceIsRefusedInOneLine) {
  const TemporaryPath path;
  const std::string name = path.string();
  EXPECT_EQ(refusal("", name), name + " is empty, not an Ebbtide trace");
  EXPECT_EQ(refusal("hello, world; this is long enough", name), name + " is not an Ebbtide trace");
  EXPECT_EQ(refusal("x", name), name + " is not an Ebbtide trace");
  EXPECT_EQ(refusal("EBBTRA", name), name + " ends inside the header of a trace");
}

TEST(TraceReader, AMissingFileAndAFolderAreRefusedInOneLine) {
  const auto missing = TraceReader::open("/nonexistent/run.ebb");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().message,
            "cannot open trace /nonexistent/run.ebb: No such file or directory");
  const auto folder = TraceReader::open(testing::TempDir());
  ASSERT_FALSE(folder.ok());
  EXPECT_NE(folder.error().message.find("Is a directory"), std::string::npos);
}

TEST(TraceReader, AnotherVersionIsNamed) {
  const TemporaryPath path;
  std::string bytes = small_trace();
  const std::uint32_t version = 7;
  std::memcpy(bytes.data() + offsetof(FileHeader, version), &version, sizeof version);
  EXPECT_EQ(refusal(bytes, path.string()),
            "unknown version 7 of " + path.string() + "; this build reads 1");
}

TEST(TraceReader, TheOtherByteOrderIsNamed) {
  const TemporaryPath path;
  std::string bytes = small_trace();
  std::memcpy(bytes.data() + offsetof(FileHeader, byte_order), &kTraceByteOrderSwapped, 4);
  EXPECT_EQ(refusal(bytes, path.string()),
            path.string() + " was written on a machine of the other byte order");
}

TEST(TraceReader, ATraceCutAtAnyByteIsReadUpToTheCut) {
  const TemporaryPath path;
  const std::string whole = small_trace();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    if (size < sizeof(FileHeader)) {
      EXPECT_NE(refusal(whole.substr(0, size), path.string()), "");
      continue;
    }
    write_bytes(path.string(), whole.substr(0, size));
    auto reader = TraceReader::open(path.string());
    ASSERT_TRUE(reader.ok());
    const std::size_t whole_blocks = (size - sizeof(FileHeader)) / kBlockBytes;
    const bool has_last = size >= whole.size() - sizeof(Frame);
    EXPECT_EQ(read_all(reader.value()).size(), has_last ? kEvents : whole_blocks * kPerBlock)
        << "cut at " << size;
    EXPECT_EQ(reader.value().end(), TraceEnd::kTruncated);
    EXPECT_NE(reader.value().damage(), "");
  }
}

TEST(TraceReader, ADamagedBlockEndsTheTraceBeforeIt) {
  const TemporaryPath path;
  std::string bytes = small_trace();
  bytes[sizeof(FileHeader) + kBlockBytes + sizeof(Frame) + 3] ^= 1;
  write_bytes(path.string(), bytes);
  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(read_all(reader.value()).size(), kPerBlock);
  EXPECT_EQ(reader.value().end(), TraceEnd::kDamaged);
  EXPECT_EQ(reader.value().damage(), "damaged after 8 events");
}

TEST(TraceReader, AMissingBlockIsNoticed) {
  const TemporaryPath path;
  std::string bytes = small_trace();
  bytes.erase(sizeof(FileHeader), kBlockBytes);
  write_bytes(path.string(), bytes);
  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok());
  EXPECT_TRUE(read_all(reader.value()).empty());
  EXPECT_EQ(reader.value().end(), TraceEnd::kDamaged);
  EXPECT_EQ(reader.value().damage(), "0 events, where 8 belong");
}

TEST(TraceReader, BytesAfterTheTotalsAreNoticed) {
  const TemporaryPath path;
  write_bytes(path.string(), small_trace() + "x");
  auto reader = TraceReader::open(path.string());
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(read_all(reader.value()).size(), kEvents);
  EXPECT_EQ(reader.value().end(), TraceEnd::kDamaged);
}

TEST(TraceReader, FlippedBytesNeverPassUnnoticed) {
  const TemporaryPath path;
  const std::string whole = small_trace();
  const auto events = random_events(kEvents, 1);
  std::mt19937 random(4);
  for (int turn = 0; turn < 20'000; ++turn) {
    std::string bytes = whole;
    const std::size_t flips = 1 + random() % 4;
    for (std::size_t i = 0; i < flips; ++i) {
      const std::size_t at = (random() % whole.size() + i) % whole.size();
      bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 + random() % 255));
    }
    if (bytes == whole) continue;  // two flips undid each other
    if (!refusal(bytes, path.string()).empty()) continue;
    auto reader = TraceReader::open(path.string());
    const auto read = read_all(reader.value());
    ASSERT_NE(reader.value().end(), TraceEnd::kComplete) << "turn " << turn;
    ASSERT_LE(read.size(), events.size());
    ASSERT_TRUE(read.empty() || std::memcmp(read.data(), events.data(), read.size() * sizeof(EventRecord)) == 0);
    const auto summary = summarize_trace(path.string());
    ASSERT_TRUE(summary.ok());
    ASSERT_NE(summary.value().damage, "");
  }
}

}  // namespace
}  // namespace ebbtide
