#include "dryrun/core/typical.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>
#include <vector>

namespace ebbtide::dryrun {
namespace {

std::vector<int> loads(int rows, int chosen, int candidates) {
  const TypicalValues typical;
  std::vector<int> times(static_cast<std::size_t>(candidates), 0);
  for (int row = 0; row < rows; ++row) {
    std::set<std::int64_t> named;
    for (int slot = 0; slot < chosen; ++slot) {
      const std::int64_t index = typical.choice(row, slot, chosen, candidates);
      EXPECT_TRUE(named.insert(index).second) << "row " << row << " names " << index << " twice";
      ++times.at(static_cast<std::size_t>(index));
    }
  }
  return times;
}

TEST(TypicalValues, ChoicesNameEachCandidateEquallyOften) {
  for (const auto& [rows, chosen, candidates] : std::vector<std::array<int, 3>>{
           {64, 2, 8}, {7, 2, 8}, {100, 3, 7}, {5, 1, 32000}, {9, 6, 6}}) {
    const std::vector<int> times = loads(rows, chosen, candidates);
    const auto [least, most] = std::minmax_element(times.begin(), times.end());
    EXPECT_LE(*most - *least, 1) << rows << " rows, " << chosen << " of " << candidates;
  }
}

TEST(TypicalValues, WhatIsSortedWholeBeginsElsewhereInEachRow) {
  const TypicalValues typical;
  EXPECT_EQ(typical.choice(0, 0, 4, 4), 0);
  EXPECT_EQ(typical.choice(1, 0, 4, 4), 1);
  EXPECT_EQ(typical.choice(1, 3, 4, 4), 0);
}

TEST(TypicalValues, ElementsFillTheirIntervalEvenly) {
  TypicalValues typical;
  typical.low = -1;
  typical.high = 3;
  int below_zero = 0;
  for (int i = 0; i < 1000; ++i) {
    const double value = typical.element(i);
    EXPECT_GT(value, -1);
    EXPECT_LT(value, 3);
    below_zero += value < 0 ? 1 : 0;
  }
  EXPECT_NEAR(below_zero, 250, 5);
}

TEST(TypicalValues, TextGivesWhatItSaysAndIsWrittenBack) {
  const auto parsed = parse_typical("choice=first,number=2.5,high=4");
  ASSERT_TRUE(parsed.ok());
  EXPECT_FALSE(parsed.value().spreads_choices);
  EXPECT_EQ(parsed.value().choice(9, 1, 2, 8), 1);
  EXPECT_EQ(to_text(parsed.value()), "number=2.5,low=0,high=4,choice=first,found_inf=0");
  EXPECT_EQ(to_text(parse_typical(to_text(parsed.value())).value()), to_text(parsed.value()));
}

TEST(TypicalValues, WrongTextIsNamedWithARemedy) {
  for (const auto& [text, word] :
       std::vector<std::pair<const char*, const char*>>{{"loss=1", "known are"},
                                                        {"number", "a number"},
                                                        {"number=1x", "a number"},
                                                        {"choice=random", "choice=even"},
                                                        {"found_inf=2", "found_inf=0"},
                                                        {"low=1", "less than"},
                                                        {"high=inf", "finite"},
                                                        {"number=1,,", "known are"}}) {
    const auto parsed = parse_typical(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_NE(parsed.error().message.find(word), std::string::npos) << parsed.error().message;
  }
}

}  // namespace
}  // namespace ebbtide::dryrun
