#include "allocator/runtime/program_book.h"

#include <algorithm>

#include "allocator/runtime/alignment.h"
#include "allocator/runtime/round_merge.h"

namespace ebbtide {
namespace {

constexpr std::size_t kMaxPrograms = 24;
constexpr int kMissedWhileAlive = 1;  // then a node whose block still lives is permanent
constexpr int kMissedWhileDead = 16;  // then a node is forgotten
constexpr std::size_t kMaxTurns = 4;  // tensors of one root alive at once; more is hoarding
constexpr std::uint32_t kForgottenAfter = 48;  // rounds, for a variant seen once, until the last one like it
constexpr std::uint32_t kForgottenAtLast = 4096;  // likewise until now: nothing like it came again
constexpr std::uint32_t kRootMemory = 256;  // rounds after which the origin of a block is forgotten

bool is_optimizer_state(const Round& round, std::size_t request) {
  return round.kind == RoundKind::kOptimizer && round.requests[request].death == kAlive &&
         Tick{static_cast<std::int64_t>(request)} < round.optimizer_end;
}

}  // namespace

std::optional<std::size_t> ProgramBook::learn(const Round& round) {
  if (round.empty()) return std::nullopt;
  const std::vector<Survivor> survivors = known_survivors(round);
  const std::optional<std::size_t> found = best_match(round, survivors);
  Program& program = found ? learner(*found, round, survivors) : add_program(round);
  const std::vector<PlanInput> before = program.plan_inputs();
  merge(program, round, survivors);
  note_permanence(program, survivors);
  program.previous.add(round.previous);
  program.note_learnt(round.extents);
  program.last_round = round.serial;
  program.learnt += 1;
  program.planned = program.planned && program.plan_inputs() == before;
  const std::uint32_t id = program.id;
  spread_permanence();
  note_squatters(round);  // behind what finds out that a survivor is permanent
  forget_oldest();
  const auto kept = std::find_if(programs.begin(), programs.end(),
                                 [id](const Program& candidate) { return candidate.id == id; });
  return static_cast<std::size_t>(kept - programs.begin());
}

Program& ProgramBook::add_program(const Round& round) {
  Program program;
  program.id = next_program_++;
  program.kind = round.kind;
  program.source = round.source;
  programs.push_back(std::move(program));
  return programs.back();
}

// The same sequence with other residents, or with large tensors more or less: a mask that must be padded is one
// more in every layer. Lifetimes are the variant's own: a gradient that stays in one is added and gone in the
// other. What is large and the round lacks is left out, so that it is noticed when it comes.
Program& ProgramBook::add_variant(const Program& original, const Round& round) {
  std::set<RootId> occurring;
  for (const std::int64_t node : align(original, round).node) {
    if (node >= 0) occurring.insert(original.nodes[static_cast<std::size_t>(node)].root);
  }
  Program variant = original;
  variant.id = next_program_++;
  variant.previous = {};
  variant.learnt_inputs.clear();
  variant.planned = false;
  variant.incoming.clear();
  variant.learnt = 0;
  const bool is_apart = !is_worth_sharing(original, round);
  const Bytes large{original.height.value / kNoticedPart};
  erase_nodes(variant, [&](const Node& node) {
    return is_apart && !occurring.contains(node.root) && !node.unplanned && node.slot > large;
  });
  for (Node& node : variant.nodes) {
    // What the round lacks most likely lives as long as before, if it comes.
    if (occurring.contains(node.root) || node.survives()) node.death = Tick{-1};
    node.seen = 0;
  }
  programs.push_back(std::move(variant));
  return programs.back();
}

void ProgramBook::make_permanent(Node& node) {
  node.unplanned = true;
  permanent_.insert(node.root);
}

// Variants share roots: what is permanent in one is so in all.
void ProgramBook::spread_permanence() {
  for (Program& program : programs) {
    for (Node& node : program.nodes) {
      if (node.unplanned || !is_permanent(node.root)) continue;
      node.unplanned = true;
      program.planned = false;
    }
  }
}

// Blocks in the arena that no program accounts for, alive for a whole round; and state, which will be.
void ProgramBook::note_squatters(const Round& round) {
  std::vector<Home> found;
  const auto look_at = [&](const Survivor& survivor) {
    const RootId root = survivor.root == RootId{} ? root_of(survivor.origin) : survivor.root;
    const bool is_accounted_for = root != RootId{} && !is_permanent(root);
    if (survivor.in_arena && survivor.end == kAlive && !is_accounted_for) found.push_back({survivor.offset, survivor.size});
  };
  std::for_each(round.survivors.begin(), round.survivors.end(), look_at);
  std::for_each(round.left.begin(), round.left.end(), look_at);
  std::sort(found.begin(), found.end(), [](const Home& a, const Home& b) { return a.offset < b.offset; });
  const auto same = [](const Home& a, const Home& b) { return a.offset == b.offset && a.size == b.size; };
  if (std::equal(found.begin(), found.end(), squatters.begin(), squatters.end(), same)) return;
  squatters = std::move(found);
  for (Program& program : programs) program.planned = false;
}

// A request that outlives the round while its predecessor is alive at its birth takes a root of the
// ring that nothing alive has.
void ProgramBook::take_turns(Node& node, Tick birth, const std::vector<Survivor>& survivors) {
  const auto is_taken = [&](RootId root) {
    return std::any_of(survivors.begin(), survivors.end(), [&](const Survivor& survivor) {
      return survivor.root == root && survivor.end > birth;
    });
  };
  if (!is_taken(node.root)) return;
  std::set<RootId> ring{node.root};
  if (const auto known = rings_.find(node.root); known != rings_.end()) ring = known->second;
  for (const RootId root : ring) {
    if (is_taken(root)) continue;
    node.root = root;
    return;
  }
  if (ring.size() >= kMaxTurns) {
    make_permanent(node);
    return;
  }
  node.root = RootId{++last_root.value};
  ring.insert(node.root);
  for (const RootId root : ring) rings_[root] = ring;
}

std::vector<Survivor> ProgramBook::known_survivors(const Round& round) const {
  std::vector<Survivor> known;
  for (Survivor survivor : round.survivors) {
    if (survivor.root == RootId{}) survivor.root = root_of(survivor.origin);
    if (survivor.root == RootId{} || is_permanent(survivor.root)) continue;
    known.push_back(survivor);
  }
  const auto by_root = [](const Survivor& a, const Survivor& b) {
    return a.root != b.root ? a.root < b.root : a.end > b.end;
  };
  std::sort(known.begin(), known.end(), by_root);
  const auto same_root = [](const Survivor& a, const Survivor& b) { return a.root == b.root; };
  known.erase(std::unique(known.begin(), known.end(), same_root), known.end());
  return known;
}

void ProgramBook::merge(Program& program, const Round& round, const std::vector<Survivor>& survivors) {
  program.rebuild_classes();
  const auto is_state = [&](std::size_t request) { return is_optimizer_state(round, request); };
  const MergedRound merged =
      merge_round(program, round, survivors, [this] { return RootId{++last_root.value}; }, is_state);
  for (std::size_t r = 0; r < round.requests.size(); ++r) {
    const bool is_backward = Tick{static_cast<std::int64_t>(r)} >= round.backward_begin;
    if (is_backward && program.first_of_backward == RootId{} && merged.is_node(r)) {
      program.first_of_backward = program.nodes[merged.node_of(r)].root;
    }
    if (round.requests[r].death != kAlive) continue;
    RootId& known = roots_[{round.serial, static_cast<std::uint32_t>(r)}];
    if (!merged.is_node(r)) {
      // Created once, kept for ever: no part of what repeats.
      known = RootId{++last_root.value};
      permanent_.insert(known);
      continue;
    }
    Node& node = program.nodes[merged.node_of(r)];
    // Expected where a saved plan begins, or else it would be taken for what comes next of its size.
    const bool stays = round.requests[r].node == kStaysForGood;
    stays ? make_permanent(node) : take_turns(node, Tick{static_cast<std::int64_t>(r)}, survivors);
    known = node.root;
  }
}

// Finds what outlives whole cycles, and so has no business in a plan, and forgets nodes that are gone.
void ProgramBook::note_permanence(Program& program, const std::vector<Survivor>& survivors) {
  for (const Survivor& survivor : survivors) {
    if (survivor.end != kAlive) continue;
    for (Node& node : program.nodes) {
      if (node.root == survivor.root && node.missed >= kMissedWhileAlive) make_permanent(node);
    }
  }
  // What is created once and kept is missed from then on, and yet expected where a saved plan begins.
  const bool is_beginning = program.previous.contains(RoundKind::kUnmarked);
  erase_nodes(program, [is_beginning](const Node& node) {
    return node.missed >= kMissedWhileDead && !(is_beginning && node.unplanned);
  });
  std::erase_if(program.incoming, [this](const Incoming& incoming) { return is_permanent(incoming.root); });
}

void ProgramBook::note_use(const Use& last_served) {
  for (Program& program : programs) program.last_round = last_use(program, last_served);
}

// Whether they are of rounds that begin alike: one of the two may be chosen where the other was learnt.
bool ProgramBook::are_of_one_group(const Program& a, const Program& b) {
  return a.kind == b.kind && a.source == b.source && (a.inputs.empty() || b.knows_such_inputs(a.inputs.back()));
}

// The newest round of the program's group.
std::uint32_t ProgramBook::last_of_group(const Program& of) const {
  std::uint32_t last = of.last_round;
  for (const Program& program : programs) {
    if (are_of_one_group(program, of)) last = std::max(last, program.last_round);
  }
  return last;
}

void ProgramBook::forget_oldest() {
  // Variants seen once on the way to a steady state would only be in the way of the others. What a run
  // begins with is kept: a saved plan starts there. So is the only one of its group, however many tokens are generated
  // and steps taken between two rounds like it.
  std::uint32_t now = 0;
  for (const Program& program : programs) now = std::max(now, program.last_round);
  const std::size_t known = programs.size();
  std::set<std::uint32_t> forgotten;
  for (const Program& program : programs) {
    const bool may_go = program.learnt == 1 && !program.previous.contains(RoundKind::kUnmarked);
    const bool is_old = last_of_group(program) - program.last_round > kForgottenAfter || now - program.last_round > kForgottenAtLast;
    if (may_go && is_old) forgotten.insert(program.id);
  }
  std::erase_if(programs, [&](const Program& program) { return forgotten.contains(program.id); });
  if (programs.size() > kMaxPrograms) {
    // Generation makes a program of every token: those of training, used seldom between, are not theirs to displace.
    const auto size_of_group = [this](const Program& of) {
      return std::count_if(programs.begin(), programs.end(), [&](const Program& other) { return are_of_one_group(other, of); });
    };
    const auto is_missed_less = [&](const Program& a, const Program& b) {
      const auto like_a = size_of_group(a);
      const auto like_b = size_of_group(b);
      return like_a != like_b ? like_a > like_b : a.last_round < b.last_round;
    };
    programs.erase(std::min_element(programs.begin(), programs.end(), is_missed_less));
  }
  may_be_lower = may_be_lower || programs.size() < known;
  if (now > kRootMemory) {
    roots_.erase(roots_.begin(), roots_.lower_bound(Origin{now - kRootMemory, 0}));
  }
}

std::size_t ProgramBook::count_of(RoundKind kind, std::uint32_t source) const {
  const auto is_alike = [&](const Program& program) { return program.kind == kind && program.source == source; };
  return static_cast<std::size_t>(std::count_if(programs.begin(), programs.end(), is_alike));
}

RootId ProgramBook::root_of(Origin origin) const {
  const auto found = roots_.find(origin);
  return found == roots_.end() ? RootId{} : found->second;
}

}  // namespace ebbtide
