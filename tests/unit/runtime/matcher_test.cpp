#include "allocator/runtime/matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using samples::program_of;

constexpr int kNone = -1;

std::vector<Bytes> kib(std::initializer_list<std::int64_t> sizes) {
  std::vector<Bytes> result;
  for (const std::int64_t size : sizes) result.push_back(Bytes{size * 1024});
  return result;
}

// The node of every request in turn.
std::vector<int> matched(const Program& program, const std::vector<Bytes>& requests, Bytes smallest = {},
                         const Extents& input = {}) {
  Matcher matcher;
  matcher.begin(program, smallest, input);
  std::vector<int> nodes;
  for (const Bytes size : requests) {
    const std::optional<Match> match = matcher.match(size);
    nodes.push_back(match ? static_cast<int>(match->node) : kNone);
  }
  return nodes;
}

TEST(Matcher, TheSameSequenceMatchesNodeByNode) {
  const Program program = program_of({kib({64}), kib({512}), kib({64}), kib({1024})});
  EXPECT_EQ(matched(program, kib({64, 512, 64, 1024})), (std::vector<int>{0, 1, 2, 3}));
}

TEST(Matcher, MoreThanTheProgramHasMatchesNothing) {
  const Program program = program_of({kib({64}), kib({512})});
  EXPECT_EQ(matched(program, kib({64, 512, 64, 512})), (std::vector<int>{0, 1, kNone, kNone}));
}

TEST(Matcher, AMissingNodeIsPassedOver) {
  const Program program = program_of({kib({64, 64}), kib({512, 512}), kib({100, 100}), kib({1024, 1024})});
  EXPECT_EQ(matched(program, kib({64, 100, 1024})), (std::vector<int>{0, 2, 3}));
}

TEST(Matcher, ANodeJustPassedOverCanStillCome) {
  const Program program = program_of({kib({64, 64}), kib({512, 512}), kib({100, 100}), kib({1024, 1024})});
  EXPECT_EQ(matched(program, kib({64, 100, 512, 1024})), (std::vector<int>{0, 2, 1, 3}));
}

TEST(Matcher, AnExtraRequestMatchesNothingAndTheNextGoesOn) {
  const Program program = program_of({kib({64, 64}), kib({512, 512}), kib({1024, 1024})});
  EXPECT_EQ(matched(program, kib({64, 77, 512, 1024})), (std::vector<int>{0, kNone, 1, 2}));
}

// Seen at one length only, every size may stand at the next node; but one that was too small to be recorded
// there has no node.
TEST(Matcher, WhatWasTooSmallAtTheOnlyLengthSeenTakesNoNode) {
  const Program program = program_of({kib({29000}), kib({1700}), kib({1700}), kib({58000})});
  EXPECT_EQ(matched(program, kib({58000, 1800, 3400, 3400, 116000}), Bytes{1024 * 1024}),
            (std::vector<int>{0, kNone, 1, 2, 3}));
}

TEST(Matcher, AnotherLengthMatchesNodeByNodeAndIsExpectedAfterTheFirst) {
  const Program program = program_of({kib({64, 128}), kib({16, 64}), kib({48, 48}), kib({192, 384})});
  Matcher matcher;
  matcher.begin(program, Bytes{});
  EXPECT_EQ(matcher.expected(2), Bytes{48 * 1024});
  ASSERT_TRUE(matcher.match(Bytes{256 * 1024}));
  EXPECT_TRUE(matcher.take_news());
  EXPECT_FALSE(matcher.take_news());
  EXPECT_EQ(matcher.expected(1), Bytes{256 * 1024});
  EXPECT_EQ(matcher.expected(3), Bytes{768 * 1024});
  std::uint32_t node = 1;
  for (const Bytes size : kib({256, 48, 768})) {
    const std::optional<Match> match = matcher.match(size);
    ASSERT_TRUE(match);
    EXPECT_EQ(match->node, node++);
    EXPECT_TRUE(match->exact);
  }
}

TEST(Matcher, TwoDimensionsThatVaryByThemselvesBothMatch) {
  // Even nodes grow with one length, odd ones with another.
  const Program program = program_of({kib({64, 128, 64}), kib({80, 80, 240}), kib({64, 128, 64}), kib({80, 80, 240}),
                                      kib({128, 256, 128}), kib({160, 160, 480})});
  EXPECT_EQ(matched(program, kib({128, 240, 128, 240, 256, 480})), (std::vector<int>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(matched(program, kib({96, 152, 96, 152, 192, 304})), (std::vector<int>{0, 1, 2, 3, 4, 5}));
}

// Bytes a token, seen with a batch of 2 and a length of 1403, and what they are in another input.
Program of_tokens(const std::vector<std::int64_t>& bytes_a_token) {
  std::vector<std::vector<Bytes>> sizes;
  for (const std::int64_t bytes : bytes_a_token) sizes.push_back({Bytes{bytes * 2 * 1403}});
  Program program = program_of(sizes);
  program.inputs = {{2, 1403}};
  return program;
}

TEST(Matcher, WhereTheInputIsKnownSizesAreExpectedBeforeTheFirstRequest) {
  const Program program = of_tokens({1024, 4096, 512});
  Matcher matcher;
  matcher.begin(program, Bytes{}, {3, 1979});
  EXPECT_TRUE(matcher.take_news());
  EXPECT_EQ(matcher.expected(0), Bytes{1024 * 3 * 1979});
  EXPECT_EQ(matcher.expected(1), Bytes{4096 * 3 * 1979});
}

TEST(Matcher, AnInputThatBecomesKnownLaterIsAsGood) {
  const Program program = of_tokens({1024, 4096, 512});
  Matcher matcher;
  matcher.begin(program, Bytes{});
  matcher.note_input({3, 1979});
  EXPECT_EQ(matcher.expected(2), Bytes{512 * 3 * 1979});
}

// A copy of a weight in another type: its size says nothing about what grows with the input.
TEST(Matcher, WhatStaysAsItWasInTheOnlyShapeTellsNothingAboutTheRest) {
  Program program = program_of({kib({2304}), kib({64 * 512}), kib({64 * 1024})});
  program.inputs = {{64, 256}};
  Matcher matcher;
  matcher.begin(program, Bytes{}, {128, 256});
  ASSERT_TRUE(matcher.match(Bytes{2304 * 1024}));
  EXPECT_EQ(matcher.expected(1), Bytes{128 * 512 * 1024});
  EXPECT_EQ(matcher.expected(2), Bytes{128 * 1024 * 1024});
}

// An unknown size is nothing that the input explains: the next node is not taken for it, and stays free for its own.
TEST(Matcher, InAnotherShapeARequestOfASizeThatFollowsFromNothingTakesNoNode) {
  Program program = program_of({kib({64 * 512}), kib({64 * 1024})});
  program.inputs = {{64, 256}};
  EXPECT_EQ(matched(program, kib({50000, 128 * 512, 128 * 1024}), Bytes{}, {128, 256}), (std::vector<int>{kNone, 0, 1}));
}

// Images of one size beside texts of any length: nothing of the images ever varied until the last, smaller batch.
Program of_images_and_texts() {
  const auto of_batch = [](std::int64_t rows) { return std::vector<Bytes>(3, Bytes{rows * 256 * 1000}); };
  const auto of_texts = [](std::int64_t bytes) { return std::vector<Bytes>{Bytes{bytes * 256 * 33}, Bytes{bytes * 256 * 47}, Bytes{bytes * 256 * 71}}; };
  Program program = program_of({of_batch(768), of_batch(768), of_texts(2048), of_batch(3072), of_batch(500)});
  program.nodes[1].constant_hint = true;
  program.inputs = {{256, 33}, {256, 47}, {256, 71}};
  program.rebuild_classes();
  return program;
}

TEST(Matcher, WhatNeverVariedFollowsAnExtentThatIsNewUnlessItIsAParameter) {
  const Program program = of_images_and_texts();
  Matcher matcher;
  matcher.begin(program, Bytes{}, {100, 50});
  EXPECT_EQ(matcher.expected(0), Bytes{768 * 100 * 1000});
  EXPECT_EQ(matcher.expected(1), Bytes{768 * 256 * 1000});
  EXPECT_EQ(matcher.expected(3), Bytes{3072 * 100 * 1000});
  for (const std::int64_t size : {768 * 100 * 1000, 768 * 256 * 1000, 2048 * 100 * 50, 3072 * 100 * 1000, 500 * 256 * 1000}) {
    EXPECT_TRUE(matcher.match(Bytes{size})) << size << "; the last one stays as it was, though it is no parameter";
  }
}

TEST(Matcher, WhatNeverVariedStaysAsItIsWhereNothingFollowsFromANewExtent) {
  const Program program = of_images_and_texts();
  Matcher matcher;
  matcher.begin(program, Bytes{}, {100, 50});
  for (int unknown = 0; unknown < 4; ++unknown) matcher.match(Bytes{123456789});  // the input is forgotten for it
  EXPECT_EQ(matcher.expected(0), Bytes{768 * 256 * 1000});
  matcher.note_input({256, 50});
  EXPECT_EQ(matcher.expected(3), Bytes{3072 * 256 * 1000}) << "the batch is what it always was";
}

// Of one size at a batch of two by chance: positions x 2 h and tokens x h.
TEST(Matcher, TensorsOfOneSizeByChanceAreToldApartInAnotherShape) {
  const Program program = of_tokens({1024, 1024, 1024, 4096});
  Matcher matcher;
  matcher.begin(program, Bytes{}, {4, 1979});
  std::vector<std::uint32_t> nodes;
  for (const std::int64_t size : {1024 * 2 * 1979, 1024 * 4 * 1979, 1024 * 2 * 1979, 4096 * 4 * 1979}) {
    const std::optional<Match> match = matcher.match(Bytes{size});
    ASSERT_TRUE(match);
    EXPECT_TRUE(match->exact);
    nodes.push_back(match->node);
  }
  EXPECT_EQ(nodes, (std::vector<std::uint32_t>{0, 1, 2, 3}));
}

TEST(Matcher, AnInputFromWhichNothingFollowsIsForgotten) {
  const std::vector<std::int64_t> tokens{1024, 4096, 512, 2048, 1024, 4096, 512, 2048};
  const Program program = of_tokens(tokens);
  Matcher matcher;
  matcher.begin(program, Bytes{}, {2, 1979});
  int matched = 0;  // the model cuts every input to a length of 1000, whatever it is
  for (const std::int64_t bytes : tokens) matched += matcher.match(Bytes{bytes * 2 * 1000}) ? 1 : 0;
  EXPECT_GE(matched, 4);
}

TEST(Matcher, OneRequestAloneDoesNotPassOverManyNodes) {
  Program program = program_of({kib({64, 64}), kib({100, 100}), kib({101, 101}), kib({102, 102}), kib({103, 103}),
                                kib({512, 512}), kib({104, 104}), kib({105, 105})});
  program.inputs = {{1, 100}, {1, 200}};
  EXPECT_EQ(matched(program, kib({64, 512, 100, 101}), {}, {1, 300}), (std::vector<int>{0, kNone, 1, 2})) << "512 is one too many";
  EXPECT_EQ(matched(program, kib({64, 512, 104, 105}), {}, {1, 300}), (std::vector<int>{0, kNone, 6, 7})) << "four are missing";
}

TEST(Matcher, WhatWasNotRecognisedMayHaveBeenThatWhichIsPassedOver) {
  Program program = program_of({kib({64, 64}), kib({100, 100}), kib({101, 101}), kib({102, 102}), kib({512, 512})});
  program.inputs = {{1, 100}, {1, 200}};
  EXPECT_EQ(matched(program, kib({64, 512}), {}, {1, 300}), (std::vector<int>{0, kNone})) << "three are missing";
  EXPECT_EQ(matched(program, kib({64, 777, 512}), {}, {1, 300}), (std::vector<int>{0, kNone, 4})) << "or two, and one is of another size";
}

// Regions of an image, as many as were found: their tensors are of any size, and those after them are not.
TEST(Matcher, ARunThatIsMoreThanWhatIsPassedOverIsFound) {
  Program program = program_of({kib({64, 64}), kib({100, 100}), kib({101, 101}), kib({102, 102}), kib({103, 103}),
                                kib({104, 104}), kib({512, 512}), kib({105, 105}), kib({2048, 2048})});
  program.inputs = {{1, 100}, {1, 200}};
  program.nodes[7].missed = 1;  // need not come
  const std::vector<Bytes> regions = kib({64, 777, 512, 2048});
  EXPECT_EQ(matched(program, regions, {}, {1, 300}), (std::vector<int>{0, kNone, kNone, 8}));
  const std::vector<Bytes> too_little = kib({64, 777, 104, 512});
  EXPECT_EQ(matched(program, too_little, {}, {1, 300}), (std::vector<int>{0, kNone, kNone, 6}));
  const std::vector<Bytes> alone = kib({64, 777, 778, 2048});
  EXPECT_EQ(matched(program, alone, {}, {1, 300}), (std::vector<int>{0, kNone, kNone, kNone})) << "one request is no run";
}

TEST(Matcher, WhatSomeRoundsLackedIsEasilyPassedOver) {
  Program program = program_of({kib({64, 64}), kib({100, 100}), kib({101, 101}), kib({102, 102}), kib({512, 512})});
  program.inputs = {{1, 100}, {1, 200}};
  for (std::size_t node = 1; node <= 3; ++node) program.nodes[node].missed = 1;
  EXPECT_EQ(matched(program, kib({64, 512}), {}, {1, 300}), (std::vector<int>{0, 4}));
}

// Scratch memory that grows in stairs is not recognised, and is large; all else follows from the input every time.
TEST(Matcher, AnInputThatExplainsMostRequestsIsNotForgottenForTheOthers) {
  const std::vector<Bytes> tokens{Bytes{1024 * 2 * 1403}, Bytes{1024 * 2771}};
  const std::vector<Bytes> positions{Bytes{512 * 1403}, Bytes{512 * 2771}};
  Program program = program_of({tokens, tokens, tokens, tokens, tokens, tokens, positions});
  program.inputs = {{2, 1403}, {1, 2771}};
  Matcher matcher;
  matcher.begin(program, Bytes{}, {3, 1979});
  const auto follows = [&] { return matcher.match(Bytes{1024 * 3 * 1979}).has_value(); };
  const auto is_scratch = [&] { return !matcher.match(Bytes{1000 * 3 * 1979}).has_value(); };
  EXPECT_TRUE(follows() && follows() && follows() && follows() && follows());
  EXPECT_TRUE(is_scratch() && is_scratch() && is_scratch() && is_scratch());
  EXPECT_TRUE(follows());
  const std::optional<Match> match = matcher.match(Bytes{512 * 1979});
  ASSERT_TRUE(match);
  EXPECT_TRUE(match->exact);
}

// A mask is copied into a padded one of nearly the same size, but for lengths that need no padding.
TEST(Matcher, OfTwinsThatComeAloneLaterOnesAreTakenForTheSecond) {
  Program program = program_of({kib({64, 64}), kib({100, 100}), kib({100, 100}), kib({512, 512}), kib({100, 100}),
                                kib({100, 100}), kib({512, 512})});
  program.inputs = {{1, 100}, {1, 200}};
  Matcher matcher;
  matcher.begin(program, Bytes{}, {1, 300});
  const auto node_of = [&](std::int64_t size) { return static_cast<int>(matcher.match(Bytes{size * 1024})->node); };
  EXPECT_EQ(node_of(64), 0);
  EXPECT_EQ(node_of(100), 1);
  EXPECT_FALSE(matcher.lone_twin());
  EXPECT_EQ(node_of(512), 3);
  ASSERT_EQ(matcher.lone_twin(), 1U);
  matcher.take_second_twin();
  EXPECT_TRUE(matcher.was_matched(2));
  EXPECT_TRUE(matcher.is_absent(4));
  EXPECT_FALSE(matcher.is_absent(5));
  EXPECT_EQ(node_of(100), 5);
  EXPECT_EQ(node_of(512), 6);
}

TEST(Matcher, WhatAnInputLackedWhenItWasSeenIsAbsent) {
  Program program = program_of({kib({64, 64}), kib({0, 100}), kib({512, 512})});
  program.inputs = {{1, 100}, {1, 200}};
  Matcher matcher;
  matcher.begin(program, Bytes{}, {1, 100});
  EXPECT_FALSE(matcher.is_absent(0));
  EXPECT_TRUE(matcher.is_absent(1));
  matcher.begin(program, Bytes{}, {1, 200});
  EXPECT_FALSE(matcher.is_absent(1));
}

TEST(Matcher, TwinsThatBothComeAreNotAlone) {
  Program program = program_of({kib({64, 64}), kib({100, 100}), kib({100, 100}), kib({512, 512})});
  program.inputs = {{1, 100}, {1, 200}};
  Matcher matcher;
  matcher.begin(program, Bytes{}, {1, 300});
  for (const std::int64_t size : {64, 100, 100, 512}) {
    EXPECT_TRUE(matcher.match(Bytes{size * 1024}));
    EXPECT_FALSE(matcher.lone_twin());
  }
}

TEST(Matcher, OfTwoNodesOfOneSizeTheOneThatIsAlwaysThereIsTaken) {
  Program program = program_of({kib({64, 64}), kib({100, 100}), kib({100, 100}), kib({512, 512})});
  program.nodes[1].missed = 2;
  EXPECT_EQ(matched(program, kib({64, 100, 512})), (std::vector<int>{0, 2, 3}));
  EXPECT_EQ(matched(program, kib({64, 100, 100, 512})), (std::vector<int>{0, 2, 1, 3}));
}

TEST(Matcher, ItsCursorAndWhatWasMatchedCanBeAsked) {
  const Program program = program_of({kib({64, 64}), kib({512, 512}), kib({100, 100})});
  Matcher matcher;
  EXPECT_FALSE(matcher.is_following());
  matcher.begin(program, Bytes{});
  EXPECT_TRUE(matcher.is_following());
  ASSERT_TRUE(matcher.match(Bytes{64 * 1024}));
  ASSERT_TRUE(matcher.match(Bytes{100 * 1024}));
  EXPECT_TRUE(matcher.was_matched(0));
  EXPECT_FALSE(matcher.was_matched(1));
  EXPECT_EQ(matcher.cursor(), 3U);
  matcher.begin(program, Bytes{});
  EXPECT_EQ(matcher.cursor(), 0U);
  EXPECT_FALSE(matcher.was_matched(0));
  matcher.end();
  EXPECT_FALSE(matcher.is_following());
}

TEST(Matcher, NeverMatchesOneNodeTwice) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 500; ++trial) {
    std::vector<std::vector<Bytes>> sizes;
    const std::size_t shapes = 1 + random() % 3;
    for (std::size_t i = 0; i < 40; ++i) {
      std::vector<Bytes>& of_node = sizes.emplace_back();
      const std::int64_t base = 512 * static_cast<std::int64_t>(1 + random() % 6);
      for (std::size_t k = 0; k < shapes; ++k) {
        of_node.push_back(Bytes{random() % 4 == 0 ? base : base * static_cast<std::int64_t>(k + 1)});
      }
    }
    const Program program = program_of(sizes);
    Matcher matcher;
    matcher.begin(program, Bytes{});
    std::set<std::uint32_t> seen;
    for (int i = 0; i < 80; ++i) {
      const std::optional<Match> match = matcher.match(Bytes{512 * static_cast<std::int64_t>(1 + random() % 18)});
      if (!match) continue;
      ASSERT_LT(match->node, program.nodes.size());
      ASSERT_TRUE(seen.insert(match->node).second) << "node " << match->node;
      ASSERT_TRUE(matcher.was_matched(match->node));
    }
  }
}

}  // namespace
}  // namespace ebbtide
