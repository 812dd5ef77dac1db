// Which program of the book a round belongs to: when it is learnt, and when it begins.
#include <algorithm>

#include "allocator/runtime/alignment.h"
#include "allocator/runtime/program_book.h"
#include "allocator/runtime/round_merge.h"

namespace ebbtide {
namespace {

constexpr double kSameSequence = 0.6; // share of bytes that must match
constexpr double kSameDespiteBatch = 0.95;  // and if only one of the two is of a batch of one
constexpr double kSameResidents = 0.7;
constexpr std::int64_t kLittlePart = 32;  // of a program's height: residents that are less
constexpr double kPriceOfSharing = 1.005;  // load accepted for having one plan instead of two
constexpr double kSameBatch = 1.5;    // likewise of a batch of one, or of more: it decides
constexpr double kSameInput = 0.35;   // likewise of having seen this very input, against which large residents still decide
constexpr double kSameBefore = 0.25;  // weight of following the same kind of round, against likeness

// Share of bytes that a program's residents and others have in common; what is little beside its height tells little.
// Requires: both sorted by root.
template <typename Right>
double likeness(const Program& program, const Right& right) {
  const std::vector<Incoming>& left = program.incoming;
  Bytes both;
  Bytes either;
  auto a = left.begin();
  auto b = right.begin();
  while (a != left.end() || b != right.end()) {
    if (b == right.end() || (a != left.end() && a->root < b->root)) {
      either += (a++)->size;
    } else if (a == left.end() || b->root < a->root) {
      either += (b++)->size;
    } else {
      both += a->size;
      either += std::max(a->size, b->size);
      ++a;
      ++b;
    }
  }
  const Bytes whole = std::max(either, Bytes{program.height.value / kLittlePart});
  return whole.value == 0 ? 1.0 : 1.0 - static_cast<double>((either - both).value) / static_cast<double>(whole.value);
}

// Without what the program made once, is still alive and is not made again: a library's workspace, about to be
// found permanent.
std::vector<Survivor> without_new_permanent(const Program& program, const Round& round,
                                            std::vector<Survivor> survivors) {
  std::set<RootId> missing;
  for (const Node& node : program.nodes) missing.insert(node.root);
  for (const std::int64_t node : align(program, round).node) {
    if (node >= 0) missing.erase(program.nodes[static_cast<std::size_t>(node)].root);
  }
  std::erase_if(survivors, [&](const Survivor& survivor) {
    return survivor.end == kAlive && missing.contains(survivor.root);
  });
  return survivors;
}

}  // namespace

std::uint32_t ProgramBook::last_use(const Program& program, const Use& last_served) {
  const auto served = last_served.find(program.id);
  return served == last_served.end() ? program.last_round : std::max(program.last_round, served->second);
}

bool ProgramBook::is_worth_sharing(const Program& program, const Round& round) {
  return cost_of_sharing(program, round) <= kPriceOfSharing;
}

bool ProgramBook::is_other_variant(const Program& program, const Round& round,
                                   const std::vector<Survivor>& survivors) const {
  if (leaves_other_residents(program, round) || differs_in_turns(program, survivors)) return true;
  return likeness(program, without_new_permanent(program, round, survivors)) < kSameResidents;
}

Program& ProgramBook::learner(std::size_t found, const Round& round, const std::vector<Survivor>& survivors) {
  Program& program = programs[found];
  const auto can_learn = [&](const Program& candidate) {
    return !is_other_variant(candidate, round, survivors) && is_worth_sharing(candidate, round);
  };
  if (can_learn(program)) return program;
  for (Program& other : programs) {
    const bool is_alike = other.kind == round.kind && other.source == round.source &&
                          align(other, round).share >= kSameSequence && other.knows_such_inputs(round.extents);
    if (is_alike && can_learn(other)) return other;
  }
  return add_variant(program, round);
}

std::optional<std::size_t> ProgramBook::best_match(const Round& round,
                                                   const std::vector<Survivor>& survivors) const {
  std::optional<std::size_t> best;
  double best_score = 0;
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const Program& program = programs[i];
    if (program.kind != round.kind || program.source != round.source) continue;
    const double share = align(program, round).share;
    if (share < (program.knows_such_inputs(round.extents) ? kSameSequence : kSameDespiteBatch)) continue;
    // Sequence first; the residents tell variants of one sequence apart.
    const double before = program.previous.contains(round.previous) ? kSameBefore : 0.0;
    const double score = std::min(share, 0.95) + likeness(program, survivors) + before;
    if (score > best_score) {
      best_score = score;
      best = i;
    }
  }
  return best;
}

// Whose turn it is must agree exactly, however few bytes it is about.
bool ProgramBook::differs_in_turns(const Program& program, const std::vector<Survivor>& survivors) const {
  const auto in_program = [&](RootId root) {
    return std::any_of(program.incoming.begin(), program.incoming.end(),
                       [root](const Incoming& incoming) { return incoming.root == root; });
  };
  const auto in_round = [&](RootId root) {
    return std::any_of(survivors.begin(), survivors.end(),
                       [root](const Survivor& survivor) { return survivor.root == root; });
  };
  return std::any_of(rings_.begin(), rings_.end(), [&](const auto& ring) {
    return in_program(ring.first) != in_round(ring.first);
  });
}

bool ProgramBook::fits(const Program& program, std::span<const Resident> alive) {
  return likeness(program, alive) >= kSameResidents;
}

const Program* ProgramBook::choose(const Round& round, std::span<const Resident> alive, const Use& last_served) const {
  const Program* best = nullptr;
  double best_likeness = -1;
  for (const Program& program : programs) {
    if (program.kind != round.kind || program.source != round.source || !program.planned) continue;
    if (program.is_fiction() && round.kind != RoundKind::kOptimizer) continue;
    const double before = program.previous.contains(round.previous) ? kSameBefore : 0.0;
    const double batch = program.knows_such_inputs(round.extents) ? kSameBatch : 0.0;
    const double input = program.has_learnt(round.extents) ? kSameInput : 0.0;
    const double alike = likeness(program, alive) + before + batch + input;
    const bool newer = best != nullptr && last_use(program, last_served) > last_use(*best, last_served);
    if (alike > best_likeness + 1e-9 || (alike > best_likeness - 1e-9 && newer)) {
      best = &program;
      best_likeness = alike;
    }
  }
  return best;
}

}  // namespace ebbtide
