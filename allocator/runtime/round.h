// One round as it was seen: the requests in order, when each ended, and what was alive at its start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "allocator/base/units.h"
#include "allocator/runtime/block_table.h"

namespace ebbtide {

// What a round begins with. Rounds of different kinds never share a program.
enum class RoundKind : std::uint8_t {
  kUnmarked = 0,   // nothing said what it is
  kStep = 1,       // begins where the user said so
  kForward = 2,    // a micro-batch: forward, and backward if there is one
  kInference = 3,  // a forward pass without gradients
  kOptimizer = 4,  // an optimizer's step and what follows until the next forward
};

inline constexpr std::size_t kRoundKinds = 5;

// A set of them.
struct RoundKinds {
  std::uint8_t bits = 0;

  bool contains(RoundKind kind) const { return (bits & bit(kind)) != 0; }
  void add(RoundKind kind) { bits = static_cast<std::uint8_t>(bits | bit(kind)); }

 private:
  static unsigned bit(RoundKind kind) { return 1U << static_cast<unsigned>(kind); }
};

// Time inside a round is the index of a request in its order. A block freed between requests i-1 and
// i has death i: it may share its place with request i. kAlive: not freed before the round's end.
inline constexpr Tick kAlive{std::numeric_limits<std::int32_t>::max()};

// The shapes of the tensors that a root module's forward was called with, one after the other: for input_ids of
// batch x length, these two. Empty where nobody told. Behind them, negative, the tokens of the pieces that such an input
// is cut into: -p stands for tensors that have p where others have batch x length (the first two extents).
using Extents = std::vector<std::int64_t>;
// No tensor has as many elements: products of extents must not overflow, nor a sign that is changed.
constexpr bool is_extent(std::int64_t extent) {
  return extent > -(std::int64_t{1} << 50) && extent < (std::int64_t{1} << 50);
}

inline constexpr std::int32_t kStaysForGood = -2;  // a library's: no part of what repeats

struct Request {
  Bytes size;
  Tick death = kAlive;
  std::int32_t node = -1;  // of the program that the round followed; -1: not expected; or kStaysForGood
};

// A block from an earlier round that was alive when this round began.
struct Survivor {
  Origin origin;
  RootId root;         // 0 while not known
  Bytes size;
  Tick end = kAlive;   // as Request::death
  bool in_arena = false;
  Offset offset;       // in the arena
};

inline constexpr int kFormShift = 16;  // in Round::source

struct Round {
  std::uint32_t serial = 0;
  RoundKind kind = RoundKind::kUnmarked;
  RoundKind previous = RoundKind::kUnmarked;  // kind of the round before it
  std::uint32_t source = 0;  // which module or optimizer, in order of first appearance, and which form above
  std::vector<Request> requests;
  std::vector<Survivor> survivors;
  std::vector<Survivor> left;  // of an optimizer's round: what it made and left in the arena that no program knows
  // In an optimizer round: the first request after the step itself. What an optimizer allocates in its
  // step and keeps is its state; what comes after (the next batch) is not.
  Tick optimizer_end = kAlive;
  Tick backward_begin = kAlive;  // the first request that autograd's backward made
  Extents extents;  // of the input
  std::uint32_t input_module = 0;  // which module was called with it, as in `source`, without the form
  bool has_other_inputs = false;  // a later forward of it was called with another one,
  bool repeats_module = false;    // and was of the same module
  std::vector<Bytes> constant_sizes;  // sizes of tensors older than all rounds (parameters), sorted

  bool empty() const { return requests.empty(); }
  static std::uint32_t module_of(std::uint32_t source) { return source & ((1U << kFormShift) - 1); }
  // Whether its mark told what number of tensors it makes: see ebbtide_mark.
  bool has_form() const { return source >> kFormShift != 0; }
};

}  // namespace ebbtide
