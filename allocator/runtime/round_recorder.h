// Writes down the round that is running: requests in order, deaths, and who was alive at its start.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "allocator/runtime/block_table.h"
#include "allocator/runtime/program_book.h"
#include "allocator/runtime/round.h"
#include "allocator/runtime/upstream_blocks.h"

namespace ebbtide {

// Guarded by the engine's lock. Round 0 is what comes before the first mark: its blocks (parameters)
// are older than all rounds and belong to none.
//
// Invariants: (1) live_bytes <= peak_bytes; (2) a request's death is > its index, but for what was withdrawn.
class RoundRecorder {
 public:
  bool is_prologue() const { return round_.serial == 0; }
  // A round this long never ends in time to be of use (marks have stopped): it is recorded no further.
  static constexpr std::size_t kMaxRequests = std::size_t{1} << 19;
  bool is_full() const { return round_.requests.size() >= kMaxRequests; }
  const Round& round() const { return round_; }

  // Adds a request, expected as `node` (or -1); returns where it stands.
  [[gnu::always_inline]] Origin add(Bytes size, std::int32_t node) {
    const auto request = static_cast<std::uint32_t>(round_.requests.size());
    Request& added = round_.requests.emplace_back();
    added.size = size;
    added.node = node;
    live_bytes_ += size;
    if (live_bytes_ > peak_bytes_) [[unlikely]] peak_bytes_ = live_bytes_;
    return {round_.serial, request};
  }
  // What add() would return.
  Origin next_origin() const { return {round_.serial, static_cast<std::uint32_t>(round_.requests.size())}; }
  // Nobody could serve the request (memory was out): the round is learnt without it.
  void withdraw(const Origin& request);
  void note_input(std::uint32_t source, const Extents& input) {
    round_.extents = input;
    round_.input_module = Round::module_of(source);
  }
  void note_other_input(std::uint32_t source) {
    round_.has_other_inputs = true;
    round_.repeats_module = round_.repeats_module || Round::module_of(source) == round_.input_module;
  }
  // Before the first round: sizes that are alive and in neither table that next() is given.
  void note_constant_sizes(std::vector<Bytes> sizes) { constant_sizes_ = std::move(sizes); }
  // Whether something older than all rounds is of this size: a parameter.
  bool is_constant_size(Bytes size) const { return std::binary_search(constant_sizes_.begin(), constant_sizes_.end(), size); }
  void note_optimizer_end() { round_.optimizer_end = Tick{static_cast<std::int64_t>(round_.requests.size())}; }
  // The next request is made in the backward pass.
  void note_backward() {
    if (round_.backward_begin == kAlive) round_.backward_begin = Tick{static_cast<std::int64_t>(round_.requests.size())};
  }
  // The block is gone: notes its death if it belongs to a round.
  void end(const BlockRecord& block) {
    const Tick now{static_cast<std::int64_t>(round_.requests.size())};
    if (block.origin.round == round_.serial) [[likely]] {
      if (block.origin.request >= round_.requests.size()) return;  // it was not written down
      round_.requests[block.origin.request].death = now;
      live_bytes_ -= block.size;
    } else if (block.survivor >= 0) {
      round_.survivors[static_cast<std::size_t>(block.survivor)].end = now;
    }
  }

  // Ends the round and begins the next. `arena` and `upstream` are all tracked live blocks: those born
  // in rounds become the new round's survivors.
  Round next(RoundKind kind, std::uint32_t source, BlockTable& arena, UpstreamBlocks& upstream,
             const ProgramBook& book);
  // What this round made is known by no root until the round was learnt.
  void forget_roots(BlockTable& arena) const;
  // Looks up again who the survivors are, and the arena's blocks, in a newer book.
  void resolve(const ProgramBook& book, BlockTable& arena);
  // The running round, empty so far, turns out to be of another kind: it begins anew, here. (An
  // optimizer that allocates nothing leaves such a round, in which gradients die.)
  void begin_again(RoundKind kind, std::uint32_t source, BlockTable& arena, UpstreamBlocks& upstream,
                   const ProgramBook& book);

  // Bytes born in this round: still alive now, and at their highest.
  Bytes live_bytes() const { return live_bytes_; }
  Bytes peak_bytes() const { return peak_bytes_; }
  // Of live_bytes(), what has the size of no parameter.
  Bytes live_beyond_gradients() const;

  // Residents alive at the round's start with their sizes, sorted by root: what chooses its program.
  std::vector<ProgramBook::Resident> residents() const;

 private:
  void add_survivor(BlockRecord& block, std::optional<Offset> in_arena, const ProgramBook& book);
  // Deaths and origins are numbers of requests: they move down with those behind what was withdrawn.
  void leave_out_withdrawn(BlockTable& arena, UpstreamBlocks& upstream);
  Bytes measured_peak() const;
  void find_survivors(BlockTable& arena, UpstreamBlocks& upstream, const ProgramBook& book);

  Round round_;
  std::vector<std::uint32_t> withdrawn_;  // of the running round's requests, in any order
  std::vector<Bytes> constant_sizes_;      // sorted, each once, from the first round on
  Bytes live_bytes_;
  Bytes peak_bytes_;
};

}  // namespace ebbtide
