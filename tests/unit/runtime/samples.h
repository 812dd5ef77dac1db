// Rounds and programs written by hand, for the tests of what learns from them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "allocator/runtime/plan_maker.h"
#include "allocator/runtime/program_book.h"
#include "allocator/runtime/round.h"

namespace ebbtide::samples {

inline Bytes mib(double count) { return {static_cast<std::int64_t>(count * 1048576.0)}; }

// A round of these requests; deaths in request indices, kAlive: outlives the round.
inline Round round_of(std::uint32_t serial, const std::vector<Request>& requests,
                      RoundKind kind = RoundKind::kForward) {
  Round round;
  round.serial = serial;
  round.kind = kind;
  round.previous = kind;
  round.requests = requests;
  return round;
}

inline Request request(Bytes size, std::int64_t death) { return {size, Tick{death}, -1}; }
inline Request lasting(Bytes size) { return {size, kAlive, -1}; }

// A block of round `serial`, alive when the next round begins, gone before its request `end`.
inline Survivor survivor(std::uint32_t serial, std::uint32_t request, Bytes size, Tick end = kAlive) {
  return {{serial, request}, {}, size, end, false, {}};
}

// A program whose nodes have these sizes in every shape (sizes[node][shape]), all dead at its end.
inline Program program_of(const std::vector<std::vector<Bytes>>& sizes) {
  Program program;
  program.shapes = sizes.empty() ? 1 : sizes.front().size();
  for (const std::vector<Bytes>& of_node : sizes) {
    Node node;
    node.root = RootId{static_cast<std::uint32_t>(program.nodes.size() + 1)};
    node.sizes = of_node;
    node.slot = *std::max_element(of_node.begin(), of_node.end());
    node.death = Tick{static_cast<std::int64_t>(sizes.size())};
    program.nodes.push_back(node);
  }
  program.rebuild_classes();
  return program;
}

// Plans all programs; each is valid, lies inside the book's height, and the validator agrees.
inline void plan(ProgramBook& book, const PlanOptions& options = {}) {
  const Status made = make_plans(book, options);
  ASSERT_TRUE(made.ok()) << made.error().message;
  const Status judged = validate_plans(book);
  EXPECT_TRUE(judged.ok()) << judged.error().message;
  for (const Program& program : book.programs) {
    EXPECT_TRUE(program.is_valid());
    EXPECT_TRUE(program.planned);
    EXPECT_LE(program.height, book.height);
    EXPECT_GE(program.height, program.lower_bound);
    for (const Node& node : program.nodes) {
      if (node.unplanned) continue;
      EXPECT_LE((node.offset + node.slot).value, align_up(book.height, Bytes{512}).value);
    }
  }
}

}  // namespace ebbtide::samples
