#include "allocator/runtime/program.h"

#include <gtest/gtest.h>

#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using samples::program_of;

constexpr std::uint32_t kAnchor = 0;  // the class of node 0
constexpr std::uint32_t kWanted = 1;

// Predicts the size of the second of two nodes when the first has size `x`.
Bytes predicted(const std::vector<Bytes>& anchor, const std::vector<Bytes>& wanted, Bytes x) {
  const Program program = program_of({anchor, wanted});
  EXPECT_EQ(program.nodes[0].size_class, kAnchor);
  EXPECT_EQ(program.nodes[1].size_class, kWanted);
  return predict_size(program, kWanted, kAnchor, x).size;
}

std::vector<Bytes> sizes(std::initializer_list<std::int64_t> kib) {
  std::vector<Bytes> result;
  for (const std::int64_t size : kib) result.push_back(Bytes{size * 1024});
  return result;
}

TEST(PredictSize, AKnownShapeIsAnsweredFromWhatWasSeen) {
  EXPECT_EQ(predicted(sizes({64, 128, 256}), sizes({10, 33, 40}), Bytes{128 * 1024}), Bytes{33 * 1024});
}

TEST(PredictSize, ASizeThatNeverVariedIsConstant) {
  EXPECT_EQ(predicted(sizes({64, 128}), sizes({48, 48}), Bytes{512 * 1024}), Bytes{48 * 1024});
}

TEST(PredictSize, GrowsLinearly) {
  EXPECT_EQ(predicted(sizes({64, 128}), sizes({192, 384}), Bytes{512 * 1024}), Bytes{1536 * 1024});
  EXPECT_EQ(predicted(sizes({64, 128, 96}), sizes({192, 384, 288}), Bytes{32 * 1024}), Bytes{96 * 1024});
}

TEST(PredictSize, GrowsWithTheSquare) {
  EXPECT_EQ(predicted(sizes({64, 128}), sizes({16, 64}), Bytes{512 * 1024}), Bytes{1024 * 1024});
}

TEST(PredictSize, GrowsAlongALineThatMissesTheOrigin) {
  EXPECT_EQ(predicted(sizes({64, 128}), sizes({100, 164}), Bytes{256 * 1024}), Bytes{292 * 1024});
  EXPECT_EQ(predicted(sizes({64, 128, 256}), sizes({100, 164, 292}), Bytes{192 * 1024}), Bytes{228 * 1024});
}

TEST(PredictSize, OneShapeOnlyScalesInProportion) {
  EXPECT_EQ(predicted(sizes({64}), sizes({16}), Bytes{128 * 1024}), Bytes{32 * 1024});
}

TEST(PredictSize, OneShapeOfAParametersSizeStays) {
  Program program = program_of({sizes({64}), sizes({16})});
  program.nodes[1].constant_hint = true;
  program.rebuild_classes();
  EXPECT_EQ(predict_size(program, kWanted, kAnchor, Bytes{128 * 1024}).size, Bytes{16 * 1024});
}

TEST(PredictSize, AShapeInWhichTheNodeDidNotOccurTeachesNothing) {
  EXPECT_EQ(predicted(sizes({64, 128, 256}), sizes({16, 0, 64}), Bytes{512 * 1024}), Bytes{128 * 1024});
  EXPECT_EQ(predicted(sizes({64, 128}), sizes({0, 16}), Bytes{64 * 1024}), Bytes{8 * 1024});
}

TEST(PredictSize, GrowsWithTheRoot) {
  EXPECT_EQ(predicted(sizes({64, 256}), sizes({32, 64}), Bytes{1024 * 1024}), Bytes{128 * 1024});
}

TEST(PredictSize, IsSureOnlyOfWhatSeveralShapesAgreeOn) {
  const Bytes x{512 * 1024};
  EXPECT_FALSE(predict_size(program_of({sizes({64}), sizes({16})}), kWanted, kAnchor, x).is_sure);
  EXPECT_TRUE(predict_size(program_of({sizes({64, 128}), sizes({16, 32})}), kWanted, kAnchor, x).is_sure);
  EXPECT_FALSE(predict_size(program_of({sizes({64, 128, 256}), sizes({16, 90, 17})}), kWanted, kAnchor, x).is_sure);
}

TEST(PredictSize, IsAMultipleOf512AndNeverTooSmall) {
  const Bytes size = predicted({Bytes{3 * 512}, Bytes{5 * 512}}, {Bytes{3 * 1700}, Bytes{5 * 1700}}, Bytes{7 * 512});
  EXPECT_EQ(size.value % 512, 0);
  EXPECT_GE(size.value, 7 * 1700);
  EXPECT_LT(size.value, 7 * 1700 + 512);
}

TEST(Program, NodesThatVaryTogetherShareAClass) {
  const Program program = program_of({sizes({64, 128}), sizes({16, 16}), sizes({64, 128}), sizes({64, 64})});
  EXPECT_EQ(program.nodes[0].size_class, program.nodes[2].size_class);
  EXPECT_NE(program.nodes[0].size_class, program.nodes[3].size_class);
  EXPECT_EQ(program.class_sizes.size(), 3U);
  EXPECT_FALSE(program.is_constant(program.nodes[0].size_class));
  EXPECT_TRUE(program.is_constant(program.nodes[1].size_class));
  EXPECT_TRUE(program.is_valid());
}

TEST(Program, IsNotValidWhenANodeDiesBeforeItIsBornOrOutgrowsItsSlot) {
  Program program = program_of({sizes({64}), sizes({16})});
  program.nodes[1].death = Tick{1};
  EXPECT_FALSE(program.is_valid());
  program.nodes[1].death = Tick{2};
  EXPECT_TRUE(program.is_valid());
  program.nodes[0].slot = Bytes{1024};
  EXPECT_FALSE(program.is_valid());
}

}  // namespace
}  // namespace ebbtide
