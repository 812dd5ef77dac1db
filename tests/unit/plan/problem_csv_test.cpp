#include "allocator/plan/problem_csv.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <tuple>

#include "tests/unit/plan/reference.h"

namespace ebbtide {
namespace {

Result<NamedProblem> read(const std::string& text) {
  std::istringstream input(text);
  return read_problem_csv(input, "p.csv");
}

std::string refusal(const std::string& text) {
  const auto result = read(text);
  return result.ok() ? "" : result.error().message;
}

TEST(ProblemCsv, ReadsTheBasicColumnsInAnyOrderAndLineEnds) {
  const auto result = read("size,id,lower,upper\r\n4,b1,0,3\r\n5,b2,3,9\r\n\r\nignored\r\n");
  ASSERT_TRUE(result.ok());
  const NamedProblem& named = result.value();
  ASSERT_EQ(named.ids, (std::vector<std::string>{"b1", "b2"}));
  EXPECT_EQ(named.problem.buffers[1].size, Bytes{5});
  EXPECT_EQ(named.problem.buffers[1].live, (LiveRanges{{Tick{3}, Tick{9}}}));
  EXPECT_EQ(named.problem.buffers[1].alignment, Bytes{1});
  EXPECT_FALSE(named.problem.buffers[1].fixed);
}

TEST(ProblemCsv, GapsCutTheLifetime) {
  const auto result = read("id,lower,upper,size,gaps\nx,0,10,4,2-4 7-8\n");
  ASSERT_TRUE(result.ok());
  const LiveRanges expected{{Tick{0}, Tick{2}}, {Tick{4}, Tick{7}}, {Tick{8}, Tick{10}}};
  EXPECT_EQ(result.value().problem.buffers[0].live, expected);
}

TEST(ProblemCsv, WhatIsWrittenIsReadAgain) {
  std::mt19937_64 random(7);
  NamedProblem named{reference::random_problem(random, {}), {}};
  named.problem.buffers.push_back(reference::fixed_buffer(8, 0, 2, 1 << 20));
  for (std::size_t i = 0; i < named.problem.buffers.size(); ++i) {
    named.ids.push_back("buffer" + std::to_string(i));
  }
  std::ostringstream output;
  write_problem_csv(output, named);
  const auto again = read(output.str());
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again.value().ids, named.ids);
  for (std::size_t i = 0; i < named.ids.size(); ++i) {
    const Buffer& wrote = named.problem.buffers[i];
    const Buffer& got = again.value().problem.buffers[i];
    EXPECT_EQ(std::tie(got.size, got.live, got.alignment, got.fixed),
              std::tie(wrote.size, wrote.live, wrote.alignment, wrote.fixed));
  }
}

TEST(ProblemCsv, ASolutionIsWrittenAsTheOffsets) {
  const NamedProblem named{{{reference::buffer(4, 0, 3)}}, {"a"}};
  Solution solution;
  solution.offsets = {Offset{12}};
  std::ostringstream output;
  write_problem_csv(output, named, &solution);
  EXPECT_EQ(output.str(), "id,lower,upper,size,alignment,offset,gaps\na,0,3,4,1,12,\n");
}

TEST(ProblemCsv, KnowsTheOtherNamesOfColumnsAndBlanksAndAByteOrderMark) {
  const auto result = read(
      "\xEF\xBB\xBF"
      "buffer_id, begin ,upper,size,hint\nb1, 0,3 ,4,7\n");
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result.value().ids, std::vector<std::string>{"b1"});
  EXPECT_EQ(result.value().problem.buffers[0].live, (LiveRanges{{Tick{0}, Tick{3}}}));
}

TEST(ProblemCsv, AnEndIsTheLastTickOfLifeAndOfGaps) {
  const auto result = read("buffer,start,end,size,gaps\nx,0,9,4,2-3\n");
  ASSERT_TRUE(result.ok()) << result.error().message;
  const LiveRanges expected{{Tick{0}, Tick{2}}, {Tick{4}, Tick{10}}};
  EXPECT_EQ(result.value().problem.buffers[0].live, expected);
}

TEST(ProblemCsv, GapsMayTouchEachOtherAndTheEndsOfLife) {
  const auto result = read("id,lower,upper,size,gaps\nx,0,10,4,0-2 2-4  8-10\n");
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result.value().problem.buffers[0].live, (LiveRanges{{Tick{4}, Tick{8}}}));
}

TEST(ProblemCsv, AlignmentAndFixedOffsetAreOptionalInEveryRow) {
  const auto result = read("id,lower,upper,size,alignment,offset\na,0,1,4,8,16\nb,0,1,4,,\n");
  ASSERT_TRUE(result.ok()) << result.error().message;
  const auto& buffers = result.value().problem.buffers;
  EXPECT_EQ(std::tie(buffers[0].alignment, buffers[0].fixed),
            std::tuple(Bytes{8}, std::optional(Offset{16})));
  EXPECT_EQ(std::tie(buffers[1].alignment, buffers[1].fixed),
            std::tuple(Bytes{1}, std::optional<Offset>()));
}

TEST(ProblemCsv, SaysWhereAndWhatIsWrong) {
  const std::string header = "id,lower,upper,size\n";
  EXPECT_EQ(refusal(""), "p.csv:1:1: the header is missing");
  EXPECT_EQ(refusal("id,lower,upper\n"), "p.csv:1:1: column 'size' is missing");
  EXPECT_EQ(refusal("id,lower,upper,size,colour\n"),
            "p.csv:1:21: unknown column 'colour'; known are id, lower, upper (or end), size, "
            "alignment, offset, gaps, hint, arena");
  EXPECT_EQ(refusal("id,buffer,upper,size\n"), "p.csv:1:4: column 'id' appears twice");
  EXPECT_EQ(refusal("id,lower,upper,end,size\n"), "p.csv:1:16: column 'upper' appears twice");
  EXPECT_EQ(refusal(header + "a,0,1,4\nb,0,1\n"),
            "p.csv:3:1: the line has 3 fields, the header has 4");
  EXPECT_EQ(refusal(header + "a,0,1,4x\n"), "p.csv:2:7: size is not an integer: '4x'");
  EXPECT_EQ(refusal(header + "a,0,1,\n"), "p.csv:2:7: size is not an integer: ''");
  EXPECT_EQ(refusal(header + "a,0,1,99999999999999999999\n"),
            "p.csv:2:7: size is not an integer: '99999999999999999999'");
  EXPECT_EQ(refusal(header + "a,3,3,4\n"), "p.csv:2:5: the lifetime is empty");
  EXPECT_EQ(refusal(header + "a,0,1,-4\n"), "p.csv:2:7: size is negative");
  EXPECT_EQ(refusal(header + "a,0,9223372036854775807,4\n"),
            "p.csv:2:5: upper is not between -2^61 and 2^61");
}

TEST(ProblemCsv, WindowsAndGapsAndArenasAreReadAndWritten) {
  const std::string text =
      "id,lower,upper,size,alignment,offset,gaps,arena\n"
      "a,0,20,64,1,,2-4@0:16 4-6 8-10@8:64,device\n"
      "b,0,9,4,1,,,host\n"
      "c,0,9,4,1,,,device\n";
  std::istringstream input(text);
  const NamedProblem named = read_problem_csv(input, "p.csv").value();
  const Buffer& first = named.problem.buffers[0];
  EXPECT_EQ(first.live, (LiveRanges{{{0}, {4}}, {{6}, {20}}}));
  ASSERT_EQ(first.windows.size(), 2U);
  EXPECT_EQ(first.windows[0], (Window{{{2}, {4}}, Bytes{0}, Bytes{16}}));
  EXPECT_EQ(first.windows[1], (Window{{{8}, {10}}, Bytes{8}, Bytes{64}}));
  EXPECT_EQ(named.arenas, (std::vector<std::string>{"device", "host"}));
  EXPECT_EQ(named.problem.buffers[1].arena, 1U);
  EXPECT_EQ(named.problem.buffers[2].arena, 0U);
  std::ostringstream output;
  write_problem_csv(output, named);
  EXPECT_EQ(output.str(), text);
}

TEST(ProblemCsv, AWindowThatLeavesNothingIsAGap) {
  std::istringstream input("id,lower,upper,size,gaps\na,0,9,4,2-4@1:1\n");
  const Buffer buffer = read_problem_csv(input, "p.csv").value().problem.buffers[0];
  EXPECT_TRUE(buffer.windows.empty());
  EXPECT_EQ(buffer.live, (LiveRanges{{{0}, {2}}, {{4}, {9}}}));
}

TEST(ProblemCsv, FixedBuffersOfDifferentArenasMayHaveTheSameOffset) {
  const std::string rows = "id,lower,upper,size,offset,arena\na,0,9,4,0,x\nb,0,9,4,0,";
  std::istringstream apart(rows + "y\n");
  EXPECT_TRUE(read_problem_csv(apart, "p.csv").ok());
  std::istringstream together(rows + "x\n");
  EXPECT_EQ(read_problem_csv(together, "p.csv").error().code, ErrorCode::kInfeasible);
}

TEST(ProblemCsv, SaysWhereAnOptionalColumnIsWrong) {
  const std::string gaps = "id,lower,upper,size,gaps\na,0,9,4,";
  EXPECT_EQ(refusal(gaps + "2-4 3-5\n"),
            "p.csv:2:13: gap '3-5' is empty, out of order or not inside the lifetime");
  EXPECT_EQ(refusal(gaps + "2\n"), "p.csv:2:9: gap '2' is not of the form a-b or a-b@lo:hi");
  EXPECT_EQ(refusal(gaps + "0-9\n"), "p.csv:2:9: the gaps leave nothing of the lifetime");
  EXPECT_EQ(refusal(gaps + "2-4@0\n"), "p.csv:2:13: window '0' is not of the form lo:hi");
  EXPECT_EQ(refusal(gaps + "2-4@0:5\n"),
            "p.csv:2:13: window '0:5' is out of order or not inside the size");
  EXPECT_EQ(refusal(gaps + "2-4@3:x\n"), "p.csv:2:15: a window's end is not an integer: 'x'");
  EXPECT_EQ(refusal(gaps + "2-4@0:2 3-5\n"),
            "p.csv:2:17: gap '3-5' is empty, out of order or not inside the lifetime");
  EXPECT_EQ(refusal("id,lower,upper,size,alignment\na,0,9,4,0\n"),
            "p.csv:2:9: alignment is not positive");
  EXPECT_EQ(refusal("id,lower,upper,size,alignment,offset\na,0,9,4,8,12\n"),
            "p.csv:2:11: offset is not a multiple of the alignment 8");
}

TEST(ProblemCsv, RulesOfSeveralRowsNameTheBuffersAndTheirLines) {
  EXPECT_EQ(refusal("id,lower,upper,size,offset\na,0,9,4,0\nb,5,6,4,2\n"),
            "p.csv: buffer 'a' (line 2) and buffer 'b' (line 3) are fixed at overlapping offsets "
            "and live together");
  EXPECT_EQ(refusal("id,lower,upper,size\na,0,9,4611686018427387904\n"),
            "p.csv: buffer 'a' (line 2) makes the sum of all sizes exceed 2^62 bytes");
}

Result<Solution> read_plan(const std::string& text, const NamedProblem& named) {
  std::istringstream input(text);
  return read_plan_csv(input, "plan.csv", named);
}

TEST(PlanCsv, RowsBelongToBuffersByIdWhateverTheirOrder) {
  const auto named = read("id,lower,upper,size\na,0,2,4\nb,0,2,6\n");
  const auto plan = read_plan("size,offset,id\n9,4,b\n9,0,a\n", named.value());
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan.value().offsets, (std::vector<Offset>{{0}, {4}}));
  EXPECT_EQ(plan.value().height, Bytes{10});
}

TEST(PlanCsv, IdsThatRepeatAreReadInOrder) {
  const auto named = read("id,lower,upper,size\na,0,2,4\na,0,2,6\n");
  const auto plan = read_plan("id,offset\na,6\na,0\n", named.value());
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan.value().offsets, (std::vector<Offset>{{6}, {0}}));
}

TEST(PlanCsv, SaysWhichRowIsWrong) {
  const auto named = read("id,lower,upper,size\na,0,2,4\nb,0,2,6\n");
  const auto refusal_of = [&](const std::string& text) {
    return read_plan(text, named.value()).error().message;
  };
  EXPECT_EQ(refusal_of("id\na\n"), "plan.csv:1:1: column 'offset' is missing");
  EXPECT_EQ(refusal_of("id,offset\na,\nb,0\n"), "plan.csv:2:3: offset is not an integer: ''");
  EXPECT_EQ(refusal_of("id,offset\na,0\n"), "plan.csv: the plan has no buffer 'b'");
  EXPECT_EQ(refusal_of("id,offset\na,0\nc,4\n"), "plan.csv:3:1: the problem has no buffer 'c'");
  EXPECT_EQ(refusal_of("id,offset\na,0\na,4\n"), "plan.csv:3:1: buffer 'a' appears twice");
}

TEST(ProblemCsv, AMissingFileIsNamed) {
  const auto result = read_problem_csv(std::string("no/such/file.csv"));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().message, "no/such/file.csv: cannot be opened");
}

}  // namespace
}  // namespace ebbtide
