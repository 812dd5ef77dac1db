// Follows one round along a program: which expected request is this one?
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "allocator/runtime/expected_sizes.h"
#include "allocator/runtime/program.h"

namespace ebbtide {

struct Match {
  std::uint32_t node = 0;
  bool exact = false;  // the size is what was expected, not merely one that may stand here
};

// Sizes are expected as ExpectedSizes knows them. Order of search: the current node; nodes nearby (also those just
// skipped) whose size is known; the current node loosely; nodes nearby whose size is guessed; known ones further
// ahead. Nodes are optional: what is passed over is simply missing this time. A request that may have been too small
// to be recorded before is only taken for a node whose size changed as others did.
//
// Keeps a reference to the program, which must outlive the round. Not thread-safe.
// Cost: a comparison when the round does what is expected; a bounded search otherwise.
class Matcher {
 public:
  Matcher() = default;

  // Starts over at the beginning of `program`. Requests are at least `smallest`: a node that is surely
  // smaller this time is not waited for. `input`: extents of the round's input, empty if unknown.
  void begin(const Program& program, Bytes smallest, const Extents& input = {});
  // The input became known while the round was under way.
  void note_input(const Extents& input);
  bool is_following() const { return program_ != nullptr; }
  void end() { program_ = nullptr; }

  // Requires: is_following().
  std::optional<Match> match(Bytes size) {
    const std::uint32_t node = match_node(size);
    if (node == kNoNode) return std::nullopt;
    return Match{node, is_exact_};
  }

  // Whether the request is for the next node, as the one before it was for the node before, and nothing new follows from it.
  bool is_plainly_next(Bytes size) const {
    return last_taken_ && *last_taken_ + 1 == cursor_ && cursor_ < count_ && optional_[cursor_] == 0 && sizes_.is_foregone(cursor_, size);
  }
  // As match(). Requires: is_plainly_next(size).
  void take_next(Bytes size) {
    lone_twin_ = std::optional<std::uint32_t>();
    last_taken_ = cursor_;
    take(cursor_, size, true);
  }

  Bytes expected(std::uint32_t node) const { return sizes_.expected(node); }  // 0 while nothing is known
  Bytes least(std::uint32_t node) const { return sizes_.least(node); }  // that may come, as far as is known
  bool is_sure(std::uint32_t node) const { return sizes_.is_sure(node); }
  bool mixes_tensors() const { return sizes_.mixes_tensors(); }
  bool was_matched(std::uint32_t node) const { return used_[node] != 0; }
  // The request before the last one was taken for this node, and the next node, of the same size, did not come: of the
  // two, the one that came may be either.
  std::optional<std::uint32_t> lone_twin() const { return lone_twin_; }
  // It is the second one; of later pairs like it, only the second is expected. Requires: lone_twin().
  void take_second_twin();
  // This node will not come, as far as is known.
  bool is_absent(std::uint32_t node) const { return absent_[node] != 0; }
  bool is_size_seen(std::uint32_t node) const { return sizes_.is_seen(node); }
  std::uint32_t cursor() const { return cursor_; }
  // True once after the sizes expected of this round became known or changed.
  bool take_news() { return sizes_.take_news(); }
  bool has_news() const { return sizes_.has_news(); }

 private:
  // Nodes are found by number alone: what is put together in parts is slow to hand on, and this is on the way of every request.
  static constexpr std::uint32_t kNoNode = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t match_node(Bytes size);
  std::uint32_t find(Bytes size);
  [[gnu::noinline, gnu::cold]] std::uint32_t search(Bytes size);
  [[gnu::cold]] std::optional<std::uint32_t> find_far(Bytes size) const;
  std::size_t run_ending_at(std::uint32_t node, Bytes size) const;
  [[gnu::cold]] std::uint32_t likeliest_from(std::uint32_t node, Bytes size) const;
  [[gnu::cold]] bool are_twins(std::uint32_t node) const;
  bool is_due(std::uint32_t node) const;
  std::uint32_t take(std::uint32_t node, Bytes size, bool exact) {
    used_[node] = 1;
    cursor_ = std::max(cursor_, node + 1);
    sizes_.note_match(node, size);
    is_exact_ = exact;
    return node;
  }
  [[gnu::cold]] void note_passed_over();
  std::optional<std::uint32_t> find_exact(std::uint32_t begin, std::uint32_t end, Bytes size,
                                          bool guesses_count) const;

  const Program* program_ = nullptr;
  std::uint32_t count_ = 0;           // of the program's nodes
  std::uint32_t cursor_ = 0;
  bool is_exact_ = false;             // of the node found last: see Match
  std::vector<Bytes> unmatched_;      // the requests before this one that were not expected, back to one that was
  std::vector<std::uint8_t> used_;    // per node
  std::vector<std::uint8_t> optional_;  // per node: rounds like this one lack it, as far as is known
  std::vector<std::uint8_t> absent_;    // per node: see is_absent()
  std::optional<std::uint32_t> last_taken_;  // node of the request before this one
  std::optional<std::uint32_t> lone_twin_;
  ExpectedSizes sizes_;
};

}  // namespace ebbtide
