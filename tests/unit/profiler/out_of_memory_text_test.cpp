#include "profiler/out_of_memory_text.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "tests/unit/profiler/trace_samples.h"

namespace ebbtide {
namespace {

constexpr Bytes gib(std::int64_t count) { return {count * kGiB.value}; }

// 10 GiB, of which torch holds 6: 5 in a segment with a gap of 1, and an empty one of 1. Another process holds 1.
OutOfMemoryFacts facts() {
  OutOfMemoryFacts f;
  f.asked = kGiB;
  f.asked_in = "the backward of round 7";
  f.allocated = gib(4);
  f.requested = gib(4) - Bytes{100};
  f.reserved = gib(6);
  f.device_total = gib(10);
  f.device_free = gib(3);
  f.made_in_round = gib(2);
  f.largest = {{gib(3), "request 1 of round 7"}, {kGiB, "made before the first iteration"}};
  f.segments = {{0x1000, gib(5), gib(4), {kGiB}}, {0x2000, kGiB, {}, {kGiB}}};
  return f;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(OutOfMemoryText, PartsAddUpToTheCapacity) {
  const std::string text = out_of_memory_report("torch's error", facts());
  EXPECT_TRUE(has(text,
                  "  requested 4.00 GiB | rounding 100 B | stranded 1.00 GiB | cached and fitting 1.00 GiB | not torch 1.00 GiB | "
                  "free on the device 3.00 GiB\n  = capacity 10.00 GiB\n"))
      << text;
}

TEST(OutOfMemoryText, SaysWhoAskedAndWhyItDoesNotFit) {
  OutOfMemoryFacts f = facts();
  f.asked = gib(4);
  EXPECT_TRUE(has(out_of_memory_report("", f),
                  "Asked for: 4.00 GiB in the backward of round 7\n"
                  "Why it does not fit: 5.00 GiB are free, but in 3 pieces, the largest of 3.00 GiB\n"));
  f.asked = gib(6);
  EXPECT_TRUE(has(out_of_memory_report("", f), "all that is free is 5.00 GiB: 1.00 GiB less than was asked for"));
}

TEST(OutOfMemoryText, ShowsTheProgramsLinesOfWhoAskedAndOfTheLargestBlocks) {
  OutOfMemoryFacts f = facts();
  f.asked_from = {"/lib/python3/site-packages/torch/nn/functional.py:9 linear", "/me/ebbtide/_marks.py:1 __call__",
                  "/me/model.py:7 forward", "/me/train.py:3 main"};
  f.largest[0].stack = {"libtorch_cpu.so+0x12 at::empty", "train+0x34 main"};
  f.largest[1].stack = {"/lib/python3/site-packages/torch/a.py:1 f"};
  const std::string text = out_of_memory_report("", f);
  EXPECT_TRUE(has(text, "round 7\n  at /me/model.py:7 forward\n  at /me/train.py:3 main\nWhy it does not fit")) << text;
  EXPECT_TRUE(has(text, "request 1 of round 7\n                 train+0x34 main\n     1.00 GiB")) << text;
  EXPECT_TRUE(has(text, "first iteration\n                 /lib/python3/site-packages/torch/a.py:1 f\n")) << text;
}

TEST(OutOfMemoryText, OffloadIsSaidToHelpOnlyWhereItMakesRoom) {
  OutOfMemoryFacts f = facts();
  f.asked = gib(7);
  EXPECT_TRUE(has(out_of_memory_report("", f), "moving it to host memory would have made room"));
  f.asked = gib(8);
  EXPECT_TRUE(has(out_of_memory_report("", f), "moving it to host memory alone would not have made room"));
  f.made_in_round = {};
  EXPECT_TRUE(has(out_of_memory_report("", f), "nothing was made in this iteration"));
}

TEST(OutOfMemoryText, APlanIsSaidToHelpOnlyAgainstGaps) {
  OutOfMemoryFacts f = facts();
  f.asked = gib(4);
  EXPECT_TRUE(has(out_of_memory_report("", f), "what is free would have been in one piece"));
  f.asked = gib(9);
  EXPECT_TRUE(has(out_of_memory_report("", f), "it would not have helped here"));
  f.plan_height = gib(2);
  EXPECT_TRUE(has(out_of_memory_report("", f), "is in force, 2.00 GiB high"));
}

TEST(OutOfMemoryText, TorchsNumbersAreReplacedByOurs) {
  const std::string text = explain_out_of_memory("CUDA out of memory. Of the allocated memory 1 byte is ...", facts());
  EXPECT_TRUE(has(text, "CUDA out of memory. Of the allocated memory 4.00 GiB is allocated by PyTorch, and 2.00 GiB is reserved"));
  EXPECT_TRUE(has(text, "1.00 GiB asked for in the backward of round 7; the largest free block is 3.00 GiB; 5.00 GiB are free in 3 "));
}

TEST(OutOfMemoryText, IsBoundedHoweverMuchIsAlive) {
  OutOfMemoryFacts f = facts();
  for (int i = 0; i < 100000; ++i) f.largest.push_back({Bytes{1}, "someone"});
  for (int i = 0; i < 10000; ++i) f.segments.push_back({1, kGiB, {}, {kGiB}});
  const std::string text = out_of_memory_report("", f);
  EXPECT_LT(text.size(), 16384U);
  EXPECT_TRUE(has(text, "and 99962 smaller ones"));
}

TEST(OutOfMemoryText, AFileThatCannotBeWrittenIsSaid) {
  const Status status = write_text("/nonexistent/oom.txt", "text");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "/nonexistent/oom.txt: No such file or directory");
}

TEST(OutOfMemoryText, AFileIsReplaced) {
  const testing_support::TemporaryPath path;
  ASSERT_TRUE(write_text(path.string(), "a long first text").ok());
  ASSERT_TRUE(write_text(path.string(), "second").ok());
  std::ostringstream read;
  read << std::ifstream(path.string()).rdbuf();
  EXPECT_EQ(read.str(), "second");
}

}  // namespace
}  // namespace ebbtide
