// Whatever the bytes, the readers of text answer with a problem that check() accepts or with one
// line that names the place. Under sanitizers this also shows that they stay within their memory.
#include <gtest/gtest.h>

#include <regex>
#include <sstream>
#include <string>

#include "allocator/plan/problem.h"
#include "allocator/plan/problem_csv.h"
#include "tests/unit/plan/mutation.h"

namespace ebbtide {
namespace {

const std::string kProblem =
    "id,lower,upper,size,alignment,offset,gaps,hint,arena\n"
    "a,0,10,4096,512,,2-4@0:512 7-8,-1,device\n"
    "b,3,9,100,1,8192,,3,host\r\n"
    "c,-5,4611686018427387,1152921504606846976,64,-1,0-9@64:128,,device\n";
const std::string kInclusive = "buffer,start,end,size\nx,0,5,12\ny,6,9,12\n";
const std::string kPlan = "id,offset\nb,8192\na,0\nc,16384\n";

Result<NamedProblem> read_problem(const std::string& text) {
  std::istringstream input(text);
  return read_problem_csv(input, "p.csv");
}

// True: one line that begins with the source, and has a place unless it speaks of several rows.
void expect_one_line_with_place(const Error& error, const std::string& input) {
  EXPECT_EQ(error.message.find_first_of("\n\r"), std::string::npos) << error.message;
  static const std::regex place("p\\.csv:\\d+:\\d+: .+|p\\.csv: .*(buffer|plan) .+");
  EXPECT_TRUE(std::regex_match(error.message, place)) << error.message << "\nof:\n" << input;
}

TEST(CsvFuzz, AnyProblemIsReadOrRefusedInOneLineWithItsPlace) {
  mutation::Mutator mutator(1);
  int read_well = 0;
  for (int round = 0; round < 20'000; ++round) {
    const std::string text = mutator.mutate(round % 4 == 0 ? kInclusive : kProblem);
    const auto read = read_problem(text);
    if (!read.ok()) {
      expect_one_line_with_place(read.error(), text);
      continue;
    }
    ++read_well;
    ASSERT_TRUE(check(read.value().problem).ok()) << text;
  }
  EXPECT_GT(read_well, 500);  // the mutations are not all nonsense
}

TEST(CsvFuzz, AnyPlanIsReadOrRefusedInOneLineWithItsPlace) {
  const auto named = read_problem(kProblem);
  ASSERT_TRUE(named.ok()) << named.error().message;
  mutation::Mutator mutator(2);
  for (int round = 0; round < 10'000; ++round) {
    const std::string text = mutator.mutate(kPlan);
    std::istringstream input(text);
    const auto read = read_plan_csv(input, "p.csv", named.value());
    if (!read.ok()) {
      expect_one_line_with_place(read.error(), text);
    } else {
      ASSERT_EQ(read.value().offsets.size(), named.value().ids.size());
    }
  }
}

}  // namespace
}  // namespace ebbtide
