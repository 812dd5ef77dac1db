#include "allocator/runtime/input_sizes.h"

#include <gtest/gtest.h>

#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using samples::program_of;

// A program of one node, seen with these inputs (batch, length) at these sizes.
Program seen(const std::vector<Extents>& inputs, const std::vector<Bytes>& sizes) {
  Program program = program_of({sizes});
  program.inputs = inputs;
  return program;
}

std::vector<Bytes> candidates(const Program& program, const Extents& input) {
  return InputSizes(program, input).candidates(program.nodes[0].size_class).sizes;
}

bool is_proven(const Program& program, const Extents& input) {
  return InputSizes(program, input).candidates(program.nodes[0].size_class).proven;
}

// What predictions of whole tensors are rounded to.
Bytes grain(std::int64_t size) { return Bytes{align_up(size, 512)}; }

TEST(InputSizes, WithoutExtentsTheySayNothing) {
  const Program program = seen({{}}, {Bytes{1 << 20}});
  EXPECT_FALSE(InputSizes(program, {2, 1000}).says_something());
  EXPECT_FALSE(InputSizes(seen({{2, 1000}}, {Bytes{1 << 20}}), {}).says_something());
  EXPECT_FALSE(InputSizes(seen({{2, 1000, 3}}, {Bytes{1 << 20}}), {2, 1000}).says_something());
  EXPECT_FALSE(InputSizes(seen({{2, 1000}}, {Bytes{1 << 20}}), {2, 0}).says_something());
}

TEST(InputSizes, AKnownInputHasTheSizeItHad) {
  const Program program = seen({{2, 14034}, {1, 27728}}, {Bytes{77777}, Bytes{99999}});
  EXPECT_EQ(candidates(program, {1, 27728}), std::vector<Bytes>{Bytes{99999}});
}

TEST(InputSizes, OneShapeLeavesBatchOpenButNotTheLengthThatDividesTheSize) {
  const std::int64_t token = 8192;
  const Program program = seen({{2, 14034}}, {Bytes{2 * 14034 * token}});
  const std::vector<Bytes> found = candidates(program, {4, 19787});
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0], grain(4 * 19787 * token)) << "every extent once is the likeliest";
  EXPECT_NE(std::find(found.begin(), found.end(), grain(2 * 19787 * token)), found.end()) << "the batch is 2 by chance";
  EXPECT_EQ(std::find(found.begin(), found.end(), Bytes{2 * 14034 * token}), found.end()) << "14034 does not divide by chance";
  EXPECT_TRUE(is_proven(program, {4, 19787}));
}

TEST(InputSizes, TwoShapesOfOtherBatchAndLengthLeaveOneSize) {
  const std::int64_t token = 8192;
  const Program tokens = seen({{2, 14034}, {1, 27728}}, {Bytes{2 * 14034 * token}, Bytes{27728 * token}});
  EXPECT_EQ(candidates(tokens, {4, 19787}), std::vector<Bytes>{grain(4 * 19787 * token)});
  const Program positions = seen({{2, 14034}, {1, 27728}}, {Bytes{14034 * token}, Bytes{27728 * token}});
  EXPECT_EQ(candidates(positions, {4, 19787}), std::vector<Bytes>{grain(19787 * token)});
  const Program masks = seen({{2, 1403}, {1, 2771}}, {Bytes{1403 * 1403 * 2}, Bytes{2771 * 2771 * 2}});
  EXPECT_EQ(candidates(masks, {4, 1979}), std::vector<Bytes>{grain(1979 * 1979 * 2)});
}

// Flash attention accumulates dq in float32 over a length rounded up to 128.
TEST(InputSizes, PaddedLengthsArePredictedPadded) {
  const auto padded = [](std::int64_t length) { return Bytes{align_up(length, 128) * 3 * 4096 * 4}; };
  Program program = program_of({{padded(7097)}, {Bytes{7097 * 65536}}});
  program.inputs = {{1, 7097}};
  EXPECT_EQ(candidates(program, {1, 15927}).front(), padded(15927));
}

// A convolution over every second frame: (frames + 1) / 2, of a batch that is no length.
TEST(InputSizes, EverySecondElementIsALengthPaddedToTwo) {
  const auto size = [](std::int64_t batch, std::int64_t frames) { return Bytes{batch * ((frames + 1) / 2) * 10240}; };
  const Program program = seen({{30, 787}, {15, 1513}, {16, 1414}}, {size(30, 787), size(15, 1513), size(16, 1414)});
  EXPECT_EQ(candidates(program, {73, 327}), std::vector<Bytes>{size(73, 327)});
}

TEST(InputSizes, ALargeBatchIsNotPaddedWithTheLength) {
  const auto padded = [](std::int64_t batch, std::int64_t length) { return Bytes{batch * align_up(length, 128) * 4096}; };
  const Program program = seen({{70, 7097}, {65, 3001}}, {padded(70, 7097), padded(65, 3001)});
  EXPECT_EQ(candidates(program, {91, 5001}), std::vector<Bytes>{padded(91, 5001)});
}

// 317 tokens padded to 8 are 320, which divides what an encoder has of 1500 frames: by chance.
TEST(InputSizes, APaddedLengthThatDividesByChanceIsNotTheLikeliest) {
  const Bytes frames{16 * 1500 * 768 * 4};
  const Program program = seen({{317}}, {frames});
  EXPECT_EQ(candidates(program, {401}).front(), frames);
}

// Torch pads the rows of a mask to a multiple of 8.
TEST(InputSizes, OneShapeShowsThatAMaskGrowsWithTheSquare) {
  const auto mask = [](std::int64_t length) { return Bytes{length * align_up(length, 8) * 2}; };
  const Program program = seen({{1, 90990}}, {mask(90990)});
  EXPECT_EQ(candidates(program, {1, 119766}).front(), grain(mask(119766).value));
}

// 7017 rounded up to 256 is 7 x 1024, which a layer of 14336 has, too.
TEST(InputSizes, ASmoothPaddedLengthIsNoProofOfASquare) {
  const std::int64_t token = 14336 * 2;
  const Program program = seen({{1, 7017}}, {Bytes{7017 * token}});
  EXPECT_EQ(candidates(program, {1, 13864}).front(), grain(13864 * token));
}

TEST(InputSizes, WhatGrowsInStairsIsNotProven) {
  const Program once = seen({{2, 14034}}, {Bytes{196 << 20}});
  EXPECT_FALSE(is_proven(once, {4, 19787}));
  const Program twice = seen({{2, 14034}, {1, 27728}, {4, 19787}}, {Bytes{133 << 20}, Bytes{133 << 20}, Bytes{392 << 20}});
  EXPECT_TRUE(candidates(twice, {3, 10000}).empty());
}

// Rows of the batch and the length together, rounded up to 1024: 23515 and 16218 rounded up to 256 explain it as well.
TEST(InputSizes, StairsOfAllElementsAreCandidatesToo) {
  const auto scratch = [](std::int64_t rows) { return Bytes{7168 * align_up(rows, 1024)}; };
  const Program program = seen({{2, 23515}, {2, 16218}, {1, 31538}}, {scratch(47030), scratch(32436), scratch(31538)});
  const std::vector<Bytes> found = candidates(program, {2, 10379});
  EXPECT_NE(std::find(found.begin(), found.end(), scratch(20758)), found.end());
}

TEST(InputSizes, ExtentsThatRepeatCountOnce) {
  const std::int64_t token = 512;
  const Program program = seen({{2, 14034, 2, 14034}, {1, 27728, 1, 27728}},
                               {Bytes{2 * 14034 * token}, Bytes{27728 * token}});
  EXPECT_EQ(candidates(program, {3, 9999, 3, 9999}), std::vector<Bytes>{grain(3 * 9999 * token)});
}

// Clips, frames, height and width.
TEST(InputSizes, AFilmIsAsWideAsItIsHigh) {
  const auto patches = [](const Extents& film) { return grain(film[0] * film[1] * film[2] * film[3] * 8); };
  const std::vector<Extents> films = {{4, 8, 192, 192}, {1, 24, 224, 224}, {2, 32, 160, 160}};
  const Program program = seen(films, {patches(films[0]), patches(films[1]), patches(films[2])});
  const Extents other{5, 12, 112, 112};
  EXPECT_EQ(candidates(program, other), std::vector<Bytes>{patches(other)});
  EXPECT_TRUE(is_proven(program, other));
}

TEST(InputSizes, WhereThreeExtentsVaryTwoShapesAgreeByChance) {
  const Program program = seen({{4, 8, 192, 192}, {8, 16, 96, 96}}, {Bytes{1 << 20}, Bytes{2 << 20}});
  EXPECT_FALSE(is_proven(program, {5, 12, 112, 112}));
}

TEST(InputSizes, WhatIsOfAPieceHasThePiecesTokens) {
  const std::int64_t token = 8192;
  const Extents before{1, 90990, -45504, -45486};  // the last one is shorter
  const Extents now{1, 101521, -50816, -50705};
  const auto predicted = [&](std::int64_t size) { return candidates(seen({before}, {Bytes{size}}), now).front(); };
  EXPECT_EQ(predicted(45504 * token), grain(50816 * token));
  EXPECT_EQ(predicted(45486 * token), grain(50705 * token));
  EXPECT_EQ(predicted(90990 * token), grain(101521 * token));
}

TEST(InputSizes, OfTwoPiecesThatDivideASizeTheRarerDivisorIsLikelier) {
  const Program program = seen({{1, 7000, -2048, -856}}, {Bytes{856 * 11264}});  // 11 x 856 x 1024: 2048 divides it, too
  EXPECT_EQ(candidates(program, {1, 7777, -2048, -1633}).front(), grain(1633 * 11264));
}

TEST(InputSizes, PiecesAreOfTheBatchAndTheLengthTogether) {
  const std::int64_t token = 64000;
  const Program program = seen({{2, 14033, -7168, -6530}}, {Bytes{7168 * token}});
  EXPECT_EQ(candidates(program, {3, 9999, -7680, -6957}).front(), grain(7680 * token));
}

TEST(InputSizes, PiecesThatWereOfOneLengthMayBeOfTwo) {
  const std::int64_t token = 8192;
  const Program program = seen({{1, 60032, -30016, -30016}}, {Bytes{30016 * token}});
  const std::vector<Bytes> found = candidates(program, {1, 60001, -30016, -29985});
  EXPECT_NE(std::find(found.begin(), found.end(), grain(30016 * token)), found.end());
  EXPECT_NE(std::find(found.begin(), found.end(), grain(29985 * token)), found.end());
}

TEST(InputSizes, InputsWithOtherPiecesAreNotAlike) {
  const Program program = seen({{1, 9099, -4608, -4491}}, {Bytes{1 << 20}});
  EXPECT_FALSE(InputSizes(program, {1, 9099, 1, 9099}).says_something());
}

TEST(InputSizes, WhatRoundsOfThisVeryInputLackedIsLacking) {
  const Program program = seen({{16, 512}, {24, 384}}, {Bytes{}, Bytes{4096}});
  const auto is_lacking = [&](const Extents& input) { return InputSizes(program, input).inputs().is_lacking(program.nodes[0]); };
  EXPECT_TRUE(is_lacking({16, 512}));
  EXPECT_FALSE(is_lacking({24, 384}));
  EXPECT_FALSE(is_lacking({16, 384})) << "of a new input nothing is known";
}

// As many tokens in rows of any length: what grows with the tokens was of one size, until rows do not fit.
TEST(InputSizes, AnotherProductOfExtentsIsNewThoughEachOfThemWasSeen) {
  const Program program = seen({{128, 128}, {42, 384}}, {Bytes{1 << 20}, Bytes{1 << 20}});
  EXPECT_FALSE(InputSizes(program, {42, 384}).inputs().has_new_extent());
  EXPECT_FALSE(InputSizes(program, {128, 384}).inputs().has_new_extent()) << "two products are known";
  const Program rows = seen({{128, 128}, {32, 512}}, {Bytes{1 << 20}, Bytes{1 << 20}});
  EXPECT_FALSE(InputSizes(rows, {16, 1024}).inputs().has_new_extent());
  EXPECT_TRUE(InputSizes(rows, {42, 384}).inputs().has_new_extent());
}

TEST(InputSizes, ANodeIsThereWhereShapesOfTheSameBatchHadIt) {
  const Program program = seen({{1, 14034}, {2, 27728}, {4, 9000}}, {Bytes{}, Bytes{4096}, Bytes{4096}});
  const auto has_node = [&](const Extents& input) { return InputSizes(program, input).inputs().has_node(program.nodes[0]); };
  EXPECT_EQ(has_node({1, 20000}), false);
  EXPECT_EQ(has_node({2, 20000}), true);
  EXPECT_EQ(has_node({3, 20000}), std::nullopt);
}

}  // namespace
}  // namespace ebbtide
