#include "allocator/runtime/plan_maker.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "allocator/base/log.h"
#include "allocator/plan/lower_bound.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solver.h"
#include "allocator/plan/validator.h"
#include "allocator/runtime/resident_timeline.h"

namespace ebbtide {
namespace {

constexpr std::int64_t kImprovementSteps = 300'000;  // about 30 ms
constexpr double kGoodEnough = 1.001;    // of the lower bound
constexpr double kPriceOfHomes = 1.004;  // height accepted for leaving residents where they are

// How the heaviest program, which is planned first, treats homes that were given before.
enum class Homes : std::uint8_t {
  kKeep,   // residents stay where they are
  kPack,   // residents are placed first, so that their places depend on nothing else
  kFree,   // residents are placed like everything else
};

// What one way of planning leads to.
struct Outcome {
  std::map<RootId, Home> homes;
  std::map<std::size_t, Solution> solutions;  // of the programs that had to be planned
  Bytes height;
};

// Works on one book. The timeline, and so every index, is that of the book at construction.
class PlanMaker {
 public:
  PlanMaker(ProgramBook& book, const PlanOptions& options) : book_(book), options_(options) {}

  Status run();
  // Validates the plans that the book has.
  Status judge();

 private:
  void lay_out();
  const std::vector<Resident>& residents() const { return timeline_.residents(); }
  Problem state_of_residents(const std::map<RootId, Home>* homes) const;
  Problem state(std::size_t program, const std::map<RootId, Home>* homes) const;
  void fix_homes(Problem& problem, const std::map<RootId, Home>& homes) const;
  Result<Solution> solve_program(const Problem& problem, std::size_t program, bool residents_first,
                                 bool improve) const;
  Result<Outcome> plan_all(const std::vector<std::size_t>& order, Homes policy, bool improve) const;
  bool needs_plan(std::size_t program, const std::map<RootId, Home>& homes) const;
  bool are_at_home() const;
  bool stands(std::size_t program) const;
  bool is_unchanged() const;
  void apply(const Outcome& outcome);

  ProgramBook& book_;
  const PlanOptions& options_;
  ResidentTimeline timeline_;
};

void PlanMaker::lay_out() {
  timeline_ = ResidentTimeline(book_);
  std::erase_if(book_.homes, [this](const auto& home) { return !timeline_.contains(home.first); });
}

Problem PlanMaker::state_of_residents(const std::map<RootId, Home>* homes) const {
  Problem problem;
  for (const Resident& resident : residents()) {
    Buffer buffer;
    buffer.size = align_up(resident.size, options_.alignment);
    buffer.alignment = options_.alignment;
    for (const Interval& interval : resident.live) buffer.live.push_back(interval);
    problem.buffers.push_back(std::move(buffer));
  }
  if (homes != nullptr) fix_homes(problem, *homes);
  return problem;
}

// Buffers 0 .. residents-1 are the residents, then come the nodes of the program in order, then the
// squatters. A node that is a resident itself, or not planned, has size zero.
Problem PlanMaker::state(std::size_t index, const std::map<RootId, Home>* homes) const {
  const Program& program = book_.programs[index];
  Problem problem = state_of_residents(homes);
  const Tick begin = timeline_.begin_of(index);
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    Buffer buffer;
    const bool own_place = !node.unplanned && !is_resident(program, i);
    buffer.size = own_place ? align_up(node.slot, options_.alignment) : Bytes{};
    buffer.alignment = options_.alignment;
    buffer.live.push_back({begin + static_cast<std::int64_t>(i), begin + ResidentTimeline::clipped(node.death, program).value});
    problem.buffers.push_back(std::move(buffer));
  }
  for (const Home& squatter : book_.squatters) {
    Buffer buffer;
    buffer.size = align_up(squatter.size, options_.alignment);
    buffer.alignment = options_.alignment;
    buffer.fixed = squatter.offset;
    buffer.live.push_back({Tick{0}, timeline_.end()});
    problem.buffers.push_back(std::move(buffer));
  }
  return problem;
}

// Residents stay where they were, the largest first; one whose home meets another's is placed anew.
void PlanMaker::fix_homes(Problem& problem, const std::map<RootId, Home>& homes) const {
  std::vector<std::size_t> by_size(residents().size());
  std::iota(by_size.begin(), by_size.end(), std::size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(),
                   [this](std::size_t a, std::size_t b) { return residents()[a].size > residents()[b].size; });
  std::vector<std::size_t> fixed;
  for (const std::size_t r : by_size) {
    const auto home = homes.find(residents()[r].root);
    if (home == homes.end() || home->second.size < residents()[r].size) continue;
    Buffer& buffer = problem.buffers[r];
    const Offset begin = home->second.offset;
    const bool meets = std::any_of(fixed.begin(), fixed.end(), [&](std::size_t other) {
      const Buffer& neighbour = problem.buffers[other];
      return begin < *neighbour.fixed + neighbour.size && *neighbour.fixed < begin + buffer.size &&
             are_alive_together(residents()[r], residents()[other]);
    });
    const bool is_squatted = std::any_of(
        book_.squatters.begin(), book_.squatters.end(), [&](const Home& squatter) {
          return begin < squatter.offset + squatter.size && squatter.offset < begin + buffer.size;
        });
    if (meets || is_squatted) continue;
    buffer.fixed = begin;
    fixed.push_back(r);
  }
}

Result<Solution> PlanMaker::solve_program(const Problem& problem, std::size_t index,
                                          bool residents_first, bool improve) const {
  SolveOptions options;
  options.improvement_steps = improve ? kImprovementSteps : 0;
  options.should_stop = options_.should_stop;
  options.good_enough = kGoodEnough;
  if (residents_first) options.first = timeline_.packing_order();
  if (book_.programs[index].order.size() == problem.buffers.size()) {
    options.warm_orders.push_back(book_.programs[index].order);
  }
  return solve(problem, options);
}

// A plan stays good as long as no resident that is alive in its program moves or grows.
bool PlanMaker::needs_plan(std::size_t index, const std::map<RootId, Home>& homes) const {
  const Program& program = book_.programs[index];
  if (!program.planned) return true;
  const auto has_moved = [&](RootId root) {
    const auto before = book_.homes.find(root);
    const auto after = homes.find(root);
    return before == book_.homes.end() || after == homes.end() ||
           before->second.offset != after->second.offset || before->second.size < after->second.size;
  };
  for (const Incoming& incoming : program.incoming) {
    if (!book_.is_permanent(incoming.root) && has_moved(incoming.root)) return true;
  }
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    if (is_resident(program, i) && has_moved(program.nodes[i].root)) return true;
  }
  return false;
}

// Every resident has a home that it may keep.
bool PlanMaker::are_at_home() const {
  const Problem problem = state_of_residents(&book_.homes);
  return std::all_of(problem.buffers.begin(), problem.buffers.end(),
                     [](const Buffer& buffer) { return buffer.fixed.has_value(); });
}

// The plan of the program that decides is as low as it need be, and no other one asks for a resident elsewhere.
bool PlanMaker::stands(std::size_t index) const {
  const Program& program = book_.programs[index];
  const double enough = static_cast<double>(program.lower_bound.value) * kGoodEnough;
  return program.planned && static_cast<double>(book_.height.value) <= enough && are_at_home();
}

// Nothing that the plans depend on is other than when they were made.
bool PlanMaker::is_unchanged() const {
  const auto is_planned = [](const Program& program) { return program.planned; };
  return std::all_of(book_.programs.begin(), book_.programs.end(), is_planned) && are_at_home();
}

// The first program of the order decides where residents live; the others fit around them.
Result<Outcome> PlanMaker::plan_all(const std::vector<std::size_t>& order, Homes policy, bool improve) const {
  Outcome outcome;
  if (policy == Homes::kKeep) outcome.homes = book_.homes;
  bool is_first = true;
  for (const std::size_t index : order) {
    const bool decides = std::exchange(is_first, false);
    const bool stays = decides ? policy == Homes::kKeep && stands(index) : !needs_plan(index, outcome.homes);
    if (stays) {
      outcome.height = std::max(outcome.height, decides ? book_.height : book_.programs[index].height);
      continue;
    }
    const Problem problem = state(index, decides && policy != Homes::kKeep ? nullptr : &outcome.homes);
    const Result<Solution> solution = solve_program(problem, index, decides && policy != Homes::kFree, improve);
    if (!solution.ok()) return solution.error();
    outcome.height = std::max(outcome.height, solution.value().height);
    for (std::size_t r = 0; decides && r < residents().size(); ++r) {
      outcome.homes[residents()[r].root] = {solution.value().offsets[r], problem.buffers[r].size};
    }
    outcome.solutions.emplace(index, solution.value());
  }
  return outcome;
}

void PlanMaker::apply(const Outcome& outcome) {
  book_.homes = outcome.homes;
  for (const auto& [index, solution] : outcome.solutions) {
    Program& program = book_.programs[index];
    for (std::size_t i = 0; i < program.nodes.size(); ++i) {
      Node& node = program.nodes[i];
      node.offset = is_resident(program, i) ? book_.homes[node.root].offset
                                            : solution.offsets[residents().size() + i];
    }
    program.order = solution.order;
    program.height = solution.height;
    program.lower_bound = max_load(state(index, nullptr));
    program.planned = true;
    EBBTIDE_DEBUG("plan of program %u: %s, lower bound %s", program.id, to_string(program.height).c_str(),
                  to_string(program.lower_bound).c_str());
  }
  book_.height = outcome.height;
  book_.plans += 1;
}

Status PlanMaker::run() {
  lay_out();
  const bool has_changed = !is_unchanged();
  if (!has_changed && !book_.may_be_lower) return Nothing{};
  std::vector<std::size_t> order(book_.programs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::vector<Bytes> load(order.size());
  Bytes lower_bound;
  for (const std::size_t i : order) {
    load[i] = max_load(state(i, nullptr));
    lower_bound = std::max(lower_bound, load[i]);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return load[a] > load[b]; });
  const double limit = static_cast<double>(lower_bound.value) * kPriceOfHomes;
  Result<Outcome> best = Error{ErrorCode::kInfeasible, "no solution"};
  Homes best_policy = Homes::kKeep;
  const auto is_good = [&] { return best.ok() && static_cast<double>(best.value().height.value) <= limit; };
  const auto consider = [&](Homes policy, bool improve) {
    Result<Outcome> next = plan_all(order, policy, improve);
    if (!next.ok() || (best.ok() && next.value().height >= best.value().height)) return;
    best = std::move(next);
    best_policy = policy;
  };
  // Every way gets its greedy orders before one of them may spend the time on improving.
  for (const Homes policy : {Homes::kKeep, Homes::kPack, Homes::kFree}) {
    if (!is_good()) consider(policy, false);
  }
  if (!is_good()) consider(best_policy, true);
  if (!best.ok()) return best.error();
  for (const auto& [index, solution] : best.value().solutions) {
    if (const Status judged = validate(state(index, nullptr), solution); !judged.ok()) return judged;
  }
  book_.may_be_lower = !is_good() && (has_changed || best.value().height < book_.height);
  apply(best.value());
  return Nothing{};
}

Status PlanMaker::judge() {
  lay_out();
  for (std::size_t p = 0; p < book_.programs.size(); ++p) {
    const Program& program = book_.programs[p];
    if (!program.planned) continue;
    const Problem problem = state(p, nullptr);
    Solution solution;
    for (const Resident& resident : residents()) {
      const auto home = book_.homes.find(resident.root);
      if (home == book_.homes.end()) return Error{ErrorCode::kBadPlan, "gives a resident no place"};
      solution.offsets.push_back(home->second.offset);
    }
    for (const Node& node : program.nodes) solution.offsets.push_back(node.offset);
    for (const Home& squatter : book_.squatters) solution.offsets.push_back(squatter.offset);
    // Residents of other programs may live above what this one needs, never above the arena.
    solution.height = book_.height;
    if (const Status judged = validate(problem, solution); !judged.ok()) return judged;
  }
  return Nothing{};
}

}  // namespace

Status make_plans(ProgramBook& book, const PlanOptions& options) {
  return PlanMaker(book, options).run();
}

Status validate_plans(const ProgramBook& book) {
  ProgramBook copy = book;
  const PlanOptions options;
  return PlanMaker(copy, options).judge();
}

}  // namespace ebbtide
