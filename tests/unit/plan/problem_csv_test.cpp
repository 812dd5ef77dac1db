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

TEST(ProblemCsv, SaysWhereAndWhatIsWrong) {
  const std::string header = "id,lower,upper,size\n";
  EXPECT_EQ(refusal(""), "p.csv:1: the header is missing");
  EXPECT_EQ(refusal("id,lower,upper\n"), "p.csv:1: column 'size' is missing");
  EXPECT_EQ(refusal("id,lower,upper,size,colour\n"), "p.csv:1: unknown column 'colour'");
  EXPECT_EQ(refusal("id,id,upper,size\n"), "p.csv:1: column 'id' appears twice");
  EXPECT_EQ(refusal(header + "a,0,1,4\nb,0,1\n"), "p.csv:3: has 3 fields, the header has 4");
  EXPECT_EQ(refusal(header + "a,0,1,4x\n"), "p.csv:2: size is not an integer: '4x'");
  EXPECT_EQ(refusal(header + "a,0,1,\n"), "p.csv:2: size is not an integer: ''");
  EXPECT_EQ(refusal(header + "a,0,1,99999999999999999999\n"),
            "p.csv:2: size is not an integer: '99999999999999999999'");
  EXPECT_EQ(refusal(header + "a,3,3,4\n"),
            "p.csv:2: the lifetime is empty, or a gap is not inside it");
  EXPECT_EQ(refusal(header + "a,0,1,-4\n"), "p.csv: buffer 0 has a negative size (-4)");
}

TEST(ProblemCsv, AMissingFileIsNamed) {
  const auto result = read_problem_csv(std::string("no/such/file.csv"));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().message, "no/such/file.csv: cannot be opened");
}

}  // namespace
}  // namespace ebbtide
