// All programs known of one arena, and how a finished round changes them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "allocator/runtime/program.h"
#include "allocator/runtime/round.h"

namespace ebbtide {

// Where residents (tensors that live across rounds) have their place in every program.
struct Home {
  Offset offset;
  Bytes size;
};

// Learns from rounds in their order. A round either extends the program whose sequence and residents it
// shares, or becomes a variant of it (same sequence, other residents: the second micro-batch of a step
// finds gradients alive where the first found none), or a program of its own.
//
// Value type; a published copy is immutable. Not thread-safe.
class ProgramBook {
 public:
  // By program id: the serial number of the last round that it served.
  using Use = std::map<std::uint32_t, std::uint32_t>;
  void note_use(const Use& last_served);
  // Merges the round. Returns the index of the program it now belongs to; none when it was empty.
  std::optional<std::size_t> learn(const Round& round);

  // The program that most likely begins with `round`: same kind and source, residents and what came
  // before most alike; among equals the one learnt or used last; none that is a fiction, but of optimizers. `alive` are the roots of live blocks
  // with their sizes, sorted by root.
  struct Resident { RootId root; Bytes size; };
  const Program* choose(const Round& round, std::span<const Resident> alive, const Use& last_served = {}) const;
  // True when the program's residents are those alive, by most of their bytes.
  static bool fits(const Program& program, std::span<const Resident> alive);

  // How many programs there are of rounds of this kind and source.
  std::size_t count_of(RoundKind kind, std::uint32_t source) const;

  // The root of a request of a learnt round that outlived it; 0 when not known.
  RootId root_of(Origin origin) const;
  bool is_permanent(RootId root) const { return permanent_.contains(root); }

  std::vector<Program> programs;
  std::map<RootId, Home> homes;
  std::vector<Home> squatters;  // blocks that lie in the arena for good, wherever they happen to be
  Bytes height;                 // of the arena that serves all programs
  std::uint32_t plans = 0;      // plans made so far
  bool may_be_lower = false;    // the plans in force, if they were made anew, though nothing has changed
  RootId last_root;

 private:
  friend class PlanFile;

  std::optional<std::size_t> best_match(const Round& round, const std::vector<Survivor>& survivors) const;
  bool is_other_variant(const Program& program, const Round& round,
                        const std::vector<Survivor>& survivors) const;
  static std::uint32_t last_use(const Program& program, const Use& last_served);
  static bool is_worth_sharing(const Program& program, const Round& round);
  Program& add_program(const Round& round);
  Program& add_variant(const Program& original, const Round& round);
  // The program that learns the round: `found`, one like it, or a new variant of it.
  Program& learner(std::size_t found, const Round& round, const std::vector<Survivor>& survivors);
  void merge(Program& program, const Round& round, const std::vector<Survivor>& survivors);
  void note_permanence(Program& program, const std::vector<Survivor>& survivors);
  // The round's survivors that programs account for, with their roots, sorted by root.
  std::vector<Survivor> known_survivors(const Round& round) const;
  void make_permanent(Node& node);
  void spread_permanence();
  void note_squatters(const Round& round);
  bool differs_in_turns(const Program& program, const std::vector<Survivor>& survivors) const;
  void take_turns(Node& node, Tick birth, const std::vector<Survivor>& survivors);
  static bool are_of_one_group(const Program& a, const Program& b);
  std::uint32_t last_of_group(const Program& of) const;
  void forget_oldest();

  // Roots that take turns: a tensor that is replaced while its predecessor still lives (`out =
  // model(x)` frees the old output after the new one exists) needs a second place, and the programs of
  // even and odd iterations differ by it.
  std::map<RootId, std::set<RootId>> rings_;

  std::map<Origin, RootId> roots_;  // of requests of learnt rounds that outlived their round
  std::set<RootId> permanent_;      // outlive whole cycles: never planned
  std::uint32_t next_program_ = 1;
};

}  // namespace ebbtide
