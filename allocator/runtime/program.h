// A program: what rounds of one kind have in common, as the order of their requests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "allocator/base/units.h"
#include "allocator/runtime/round.h"
#include "allocator/runtime/size_table.h"

namespace ebbtide {

// A request of more than this part of a program's height tells by itself that a round is of another program.
inline constexpr std::int64_t kNoticedPart = 512;

inline constexpr std::int64_t kFictionPart = 8;  // of what rounds needed: a plan that asks for so much more is worse than none

inline constexpr std::size_t kMaxShapes = 8;  // that a program remembers

inline constexpr std::int64_t kSizeGrain = 512;  // torch's sizes are multiples of it

// One expected request.
// Side by side first: what is read of it when its request comes.
struct Node {
  RootId root;
  std::uint32_t size_class = 0;  // nodes with the same sizes in every shape vary together
  Offset offset;                 // place in the arena, when the program is planned
  Bytes slot;                    // largest size ever observed: what the plan provides
  int missed = 0;                // consecutive learnt rounds without it
  bool unplanned = false;        // outlives whole cycles: belongs upstream, not in the arena
  bool constant_hint = false;    // its size is that of a parameter: does not grow with the input
  std::uint32_t seen = 0;        // learnt rounds with it
  Tick death = kAlive;           // latest end seen, in node indices; kAlive: outlives the round
  std::vector<Bytes> sizes;      // per observed shape of the program; 0 where the node did not occur

  bool survives() const { return death == kAlive; }
};

// A tensor of an earlier round that is alive when this program begins.
struct Incoming {
  RootId root;
  Bytes size;
  Tick end = kAlive;
};

// What a plan must know of a node or of a resident: while these stay the same, so may the plan.
struct PlanInput {
  RootId root;
  Bytes size;
  Tick end;
  bool unplanned = false;

  bool operator==(const PlanInput&) const = default;
};

// Time x offset of a planned program; R is a resident, alive at both ends (wrapping around):
//
//   height |   +-----+
//          | +-+  3  +--+      4 may use the place of 1 as soon as 1 is dead
//          | |2|  +--+  |
//          | +-+--+ 4|--+
//          | | 1  |  |     +--
//        0 |R+----+--+-----| R    node index ->
//
// Plain data; a book of programs owns it, and a published book is immutable.
struct Program {
  std::uint32_t id = 0;
  RoundKind kind = RoundKind::kUnmarked;
  RoundKinds previous;                         // kinds of the rounds that it followed
  std::uint32_t source = 0;
  std::vector<Node> nodes;
  std::vector<Incoming> incoming;
  RootId first_of_backward;                    // the first node that the backward pass makes, as far as it is known
  std::size_t shapes = 0;                      // how many shapes the nodes' sizes hold, <= kMaxShapes
  std::vector<Extents> inputs;                 // per shape: the extents of its input; empty where they are unknown
  std::vector<Extents> learnt_inputs;          // of rounds merged into it, not into what it is a variant of, the newest last
  bool has_other_inputs = false;               // of some forward in it the input was another; not in plan files
  bool repeats_module = false;                 // such a one was of the same module; not in plan files
  SizeTable class_sizes;                       // per size class: its size in every shape
  std::vector<std::uint32_t> order;            // placement order of the nodes in the last solution
  Bytes height;
  Bytes lower_bound;
  Bytes asked;                                 // what its nodes and what is incoming have alive at once; not in plan files
  Bytes needed;                                // the most that a round merged into it had; not in plan files
  bool planned = false;
  std::uint32_t learnt = 0;                    // rounds merged into it
  std::uint32_t last_round = 0;                // serial of the last round merged into it or served by it

  // Groups nodes into size classes. To be called whenever sizes changed.
  void rebuild_classes();
  // True when this class had one size in all of several shapes, or looks like a parameter.
  bool is_constant(std::uint32_t size_class) const;
  // True when it is constant and its size is that of a parameter: it stays so whatever the input.
  bool is_parameter_like(std::uint32_t size_class) const;
  // Most learnt rounds lack the node: what its size would be in another round is anyone's guess.
  bool is_rare(const Node& node) const { return node.seen * 2 < learnt; }
  // Of a batch of one torch takes other ways than of larger ones (what is broadcast or contiguous already is not copied), and
  // a length of one is a token that is generated, not a text. True when the program has seen inputs like this one in
  // that, or nothing is known of them.
  bool knows_such_inputs(const Extents& input) const;
  // Merged from rounds that were so unlike each other that it asks for clearly more than any of them needed.
  bool is_fiction() const { return needed.value > 0 && asked.value > needed.value + needed.value / kFictionPart; }
  // A round of this very input was merged into it, lately.
  bool has_learnt(const Extents& input) const;
  void note_learnt(const Extents& input);
  // Of the nodes, then of what is incoming.
  std::vector<PlanInput> plan_inputs() const;
  bool is_valid() const;

 private:
  std::vector<bool> constant_;
  std::vector<bool> parameter_like_;
};

struct Prediction {
  Bytes size;            // 0: nothing can be said
  bool is_sure = false;  // several observed shapes agree on it
  // The larger of the two sizes over the smaller. Tensors of one kind lie close together: with batch and length both
  // varying, what is twice as large follows rather than what is a hundred times as large.
  double distance = 1;
};

// The size of class `wanted` expected in a round in which class `anchor` has the size `x`: the observed
// one if that shape is known, else along the power (x, x^2, the root of x) or the line that the observed
// shapes follow. Sizes grow with the length and its square, some with the length alone and others with
// batch x length: a relation that does not hold for all observed shapes is no relation.
Prediction predict_size(const Program& program, std::uint32_t wanted, std::uint32_t anchor, Bytes x);

}  // namespace ebbtide
