// Residents of the observed round stand upstream until they are made anew: the arena leaves room beside them.
#include "allocator/runtime/successors.h"

#include <gtest/gtest.h>

#include "allocator/plan/lower_bound.h"

namespace ebbtide {
namespace {

constexpr Bytes kSize{1 << 20};

// Three that come and go, then three that stay.
Program program() {
  Program program;
  for (std::uint32_t i = 0; i < 6; ++i) {
    Node node;
    node.root = RootId{i + 1};
    node.sizes = {kSize};
    node.slot = kSize;
    node.death = i < 3 ? Tick{3} : kAlive;
    program.nodes.push_back(node);
  }
  program.shapes = 1;
  program.inputs = {{}};
  program.rebuild_classes();
  return program;
}

Survivor survivor(std::uint32_t root) {
  Survivor survivor;
  survivor.root = RootId{root};
  survivor.size = kSize;
  return survivor;
}

Round after_an_optimizer(std::vector<Survivor> survivors) {
  Round round;
  round.kind = RoundKind::kForward;
  round.previous = RoundKind::kOptimizer;
  round.survivors = std::move(survivors);
  return round;
}

class SuccessorsTest : public testing::Test {
 protected:
  Successors of(const Round& round) {
    matcher_.begin(program_, Bytes{512}, {});
    return successors_of(program_, matcher_, round);
  }

  Problem problem() const {
    Problem problem;
    for (std::uint32_t i = 0; i < program_.nodes.size(); ++i) {
      Buffer buffer;
      buffer.size = kSize;
      buffer.live.push_back({Tick{i}, std::min(program_.nodes[i].death, Tick{7})});
      problem.buffers.push_back(buffer);
    }
    return problem;
  }

  Program program_ = program();
  Matcher matcher_;
};

TEST_F(SuccessorsTest, TakeOverFromWhatUpstreamHolds) {
  const Successors successors = of(after_an_optimizer({survivor(4), survivor(5), survivor(6), survivor(99)}));
  EXPECT_EQ(successors.nodes, (std::vector<std::uint32_t>{3, 4, 5}));
  EXPECT_EQ(successors.size, Bytes{3 * kSize.value});
  EXPECT_EQ(successors.begin, Tick{3});
}

TEST_F(SuccessorsTest, MayBeginWhereTheBackwardPassDoes) {
  program_.first_of_backward = RootId{3};
  EXPECT_EQ(of(after_an_optimizer({survivor(4), survivor(5)})).begin, Tick{2});
}

TEST_F(SuccessorsTest, AreNoneOfWhatIsInTheArenaOrGoneAlready) {
  Survivor in_arena = survivor(4);
  in_arena.in_arena = true;
  Survivor gone = survivor(5);
  gone.end = Tick{0};
  EXPECT_TRUE(of(after_an_optimizer({in_arena, gone})).nodes.empty());
}

TEST_F(SuccessorsTest, AreNoneWhileGradientsAreAddedTo) {
  Round round = after_an_optimizer({survivor(4)});
  round.previous = RoundKind::kForward;
  EXPECT_TRUE(of(round).nodes.empty());
}

TEST_F(SuccessorsTest, LieSideBySideAboveAllThatIsThereBeforeThem) {
  const Successors successors = of(after_an_optimizer({survivor(4), survivor(5), survivor(6)}));
  const Problem on_top = with_successors_on_top(problem(), successors, Bytes{});
  EXPECT_EQ(max_load(on_top), Bytes{6 * kSize.value});  // three of the forward, and the places of three
  EXPECT_EQ(on_top.buffers[3].fixed, Offset{5 * kSize.value});
  EXPECT_EQ(on_top.buffers[5].fixed, Offset{3 * kSize.value});
  EXPECT_EQ(bottom_of(successors, on_top), Offset{3 * kSize.value});
  EXPECT_TRUE(check(on_top).ok());

  const Problem higher = with_successors_on_top(problem(), successors, Bytes{512});
  EXPECT_EQ(bottom_of(successors, higher), Offset{3 * kSize.value + 512});
}

}  // namespace
}  // namespace ebbtide
