#include "allocator/runtime/alignment.h"

#include <gtest/gtest.h>

#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using samples::lasting;
using samples::mib;
using samples::program_of;
using samples::request;
using samples::round_of;

// An activation, a gradient that stays, and an activation, seen at one length.
Program with_gradient() {
  Program program = program_of({{mib(300)}, {mib(96)}, {mib(300)}});
  program.nodes[1].death = kAlive;
  return program;
}

TEST(Alignment, TheSameRoundIsTheProgramNodeByNode) {
  const Round round = round_of(1, {request(mib(300), 3), lasting(mib(96)), request(mib(300), 3)});
  const Alignment alignment = align(with_gradient(), round);
  EXPECT_EQ(alignment.node, (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(alignment.share, 1.0);
}

TEST(Alignment, ScratchMemoryThatComesFirstDoesNotTakeAGradientsPlace) {
  const Round round = round_of(1, {request(mib(900), 4), request(mib(342), 2), lasting(mib(96)), request(mib(900), 4)});
  EXPECT_EQ(align(with_gradient(), round).node, (std::vector<std::int64_t>{0, -1, 1, 2}));
}

TEST(Alignment, AGradientThatGrewWithTheInputKeepsItsPlace) {
  const Round round = round_of(1, {request(mib(900), 3), lasting(mib(288)), request(mib(900), 3)});
  EXPECT_EQ(align(with_gradient(), round).node, (std::vector<std::int64_t>{0, 1, 2}));
}

}  // namespace
}  // namespace ebbtide
