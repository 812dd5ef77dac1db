// The C interface of the planner by itself.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <sstream>
#include <string>

#include "allocator/plan/anytime.h"
#include "allocator/plan/arenas.h"
#include "allocator/plan/csv_table.h"
#include "allocator/plan/lower_bound.h"
#include "allocator/plan/problem_csv.h"
#include "allocator/plan/torch_snapshot.h"
#include "allocator/plan/validator.h"
#include "hooks/c_status.h"
#include "hooks/ebbtide.h"

// Invariant: `solution`, if there is one, is valid for `named`, which has passed check() then.
struct ebbtide_problem {
  ebbtide::NamedProblem named;
  int device = -1;
  std::size_t streams = 0;
  std::optional<ebbtide::Solution> solution;
  std::vector<ebbtide::ArenaPlan> arenas;                 // of the solution; empty without one
  std::vector<std::optional<ebbtide::Bytes>> capacities;  // of the arenas; those beyond have none
  std::string csv;                                        // the last text handed out
};

namespace ebbtide {
namespace {

static_assert(static_cast<int>(PlanStatus::kFeasible) == EBBTIDE_PLAN_FEASIBLE);
static_assert(static_cast<int>(PlanStatus::kOptimal) == EBBTIDE_PLAN_OPTIMAL);
static_assert(static_cast<int>(PlanStatus::kInfeasible) == EBBTIDE_PLAN_INFEASIBLE);
static_assert(static_cast<int>(PlanStatus::kUnknown) == EBBTIDE_PLAN_UNKNOWN);

Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

// Asks the caller's function from one thread at a time and not more often than it is worth.
class StopPoll {
 public:
  StopPoll(ebbtide_plan_stop ask, void* context) : ask_(ask), context_(context) {}

  bool should_stop() {
    if (ask_ == nullptr || stopped_.load(std::memory_order_relaxed)) return stopped_;
    const std::int64_t now = std::chrono::steady_clock::now().time_since_epoch().count();
    std::int64_t next = next_.load(std::memory_order_relaxed);
    // Whoever moves the time of the next question asks this one.
    if (now < next || !next_.compare_exchange_strong(next, now + kPeriod.count())) return false;
    if (ask_(context_) != 0) stopped_ = true;
    return stopped_;
  }

 private:
  static constexpr std::chrono::nanoseconds kPeriod = std::chrono::milliseconds(5);

  ebbtide_plan_stop ask_;
  void* context_;
  std::atomic<bool> stopped_{false};
  std::atomic<std::int64_t> next_{0};  // on the steady clock, in its ticks
};
static_assert(std::is_same_v<std::chrono::steady_clock::duration, std::chrono::nanoseconds>);

Result<ebbtide_plan_options> known_options(const ebbtide_plan_options* given) {
  ebbtide_plan_options options{};
  options.struct_size = sizeof(options);
  options.time_limit = 10;
  options.capacity_bytes = -1;
  options.seed = 1;
  options.threads = 1;
  if (given != nullptr) {
    std::memcpy(&options, given, std::min(given->struct_size, sizeof(options)));
  }
  if (!(options.time_limit >= 0)) return invalid("the time limit is negative");
  if (options.threads < 1) return invalid("the number of threads is not positive");
  return options;
}

using Capacities = std::vector<std::optional<Bytes>>;

// Of a problem, where `bytes` >= 0 is the only arena's.
Result<Capacities> capacities_of(const ebbtide_problem& problem, std::int64_t bytes) {
  if (bytes < 0) return problem.capacities;
  if (problem.named.arenas.size() == 1) return Capacities{Bytes{bytes}};
  return invalid("the problem has " + std::to_string(problem.named.arenas.size()) +
                 " arenas: give each its capacity (ebbtide_problem_set_capacity)");
}

Result<ArenasPlan> solve_with(const Problem& problem, const ebbtide_plan_options& options,
                              const Capacities& capacities) {
  StopPoll poll(options.should_stop, options.context);
  AnytimeOptions solving;
  solving.time_limit = options.time_limit;
  solving.threads = static_cast<unsigned>(options.threads);
  solving.seed = options.seed;
  solving.should_stop = [&poll] { return poll.should_stop(); };
  if (options.on_progress != nullptr) {
    solving.on_progress = [&options](const PlanProgress& progress) {
      const ebbtide_plan_result best{
          sizeof(best),     progress.height.value, progress.lower_bound.value,
          progress.seconds, EBBTIDE_PLAN_UNKNOWN,  1};
      options.on_progress(&best, options.context);
    };
  }
  return solve_arenas(problem, solving, capacities);
}

std::vector<std::string> names_of(const NamedProblem& named) {
  std::vector<std::string> names;
  for (const std::string& id : named.ids) names.push_back("buffer " + quoted(id));
  return names;
}

// check() and validate() with names made only for a message.
Status check_named(const NamedProblem& named) {
  const Status checked = check(named.problem);
  return checked.ok() ? checked : check(named.problem, names_of(named));
}
Status validate_named(const NamedProblem& named, const Solution& solution) {
  const Status judged = validate(named.problem, solution);
  return judged.ok() ? judged : validate(named.problem, solution, names_of(named));
}

ebbtide_status plan(ebbtide_problem& problem, const ebbtide_plan_options* given,
                    ebbtide_plan_result* result) {
  const auto options = known_options(given);
  if (!options.ok()) return fail(options.error());
  if (const Status checked = check_named(problem.named); !checked.ok()) {
    return fail(checked.error());
  }
  const auto capacities = capacities_of(problem, options.value().capacity_bytes);
  if (!capacities.ok()) return fail(capacities.error());
  auto solved = solve_with(problem.named.problem, options.value(), capacities.value());
  if (!solved.ok()) return fail(solved.error());
  ArenasPlan found = std::move(solved).value();
  const bool has_plan = found.solution.offsets.size() == problem.named.ids.size();
  if (has_plan) {
    const Status judged = validate_named(problem.named, found.solution);
    if (!judged.ok()) return fail(judged.error());
    problem.solution = std::move(found.solution);
    problem.arenas = found.arenas;
  }
  const Bytes height = has_plan ? found.height() : Bytes{0};
  copy_known({sizeof(ebbtide_plan_result), height.value, found.lower_bound().value, found.seconds,
              static_cast<int>(found.status()), has_plan ? 1 : 0},
             result);
  return EBBTIDE_OK;
}

Result<ebbtide_problem> read_bytes(std::string_view bytes, const std::string& source, int device) {
  ebbtide_problem problem;
  if (looks_like_pickle(bytes)) {
    auto read =
        read_torch_snapshot(bytes, source, device < 0 ? std::nullopt : std::optional(device));
    if (!read.ok()) return read.error();
    problem.device = read.value().device;
    problem.streams = read.value().streams;
    problem.named = std::move(read).value().named;
    return problem;
  }
  if (device >= 0) {
    return invalid(source + ": is no memory snapshot, so a device cannot be chosen");
  }
  std::istringstream input{std::string(bytes)};
  auto read = read_problem_csv(input, source);
  if (!read.ok()) return read.error();
  problem.named = std::move(read).value();
  return problem;
}

Status add(ebbtide_problem& problem, const char* arena, const char* id, Buffer buffer) {
  if (!buffer.live.is_valid()) return invalid("the intervals are empty, out of order or overlap");
  if (problem.named.ids.empty()) problem.named.arenas.clear();  // the one that nobody named
  buffer.arena = problem.named.arena_named(arena);
  problem.named.problem.buffers.push_back(std::move(buffer));
  problem.named.ids.emplace_back(id);
  problem.solution.reset();
  problem.arenas.clear();
  return Nothing{};
}

std::vector<Bytes> max_loads(const Problem& problem) {
  if (arena_count(problem) == 1) return {max_load(problem)};
  std::vector<Bytes> loads;
  for (const ArenaProblem& arena : split_arenas(problem)) loads.push_back(max_load(arena.problem));
  return loads;
}

// The first buffer that ends above its arena's capacity.
Status check_capacities(const NamedProblem& named, const Solution& solution,
                        const Capacities& capacities) {
  for (std::size_t b = 0; b < named.ids.size(); ++b) {
    const Buffer& buffer = named.problem.buffers[b];
    if (buffer.arena >= capacities.size() || !capacities[buffer.arena]) continue;
    const Bytes capacity = *capacities[buffer.arena];
    if (Bytes{solution.offsets[b].value} + buffer.size <= capacity) continue;
    return Error{ErrorCode::kBadPlan, "buffer " + quoted(named.ids[b]) +
                                          " ends above the capacity " +
                                          std::to_string(capacity.value) + " of its arena"};
  }
  return Nothing{};
}

ebbtide_status check_plan(ebbtide_problem& problem, std::string_view bytes,
                          const std::string& source, std::int64_t capacity, std::int64_t* height) {
  if (const Status checked = check_named(problem.named); !checked.ok()) {
    return fail(checked.error());
  }
  const auto capacities = capacities_of(problem, capacity);
  if (!capacities.ok()) return fail(capacities.error());
  std::istringstream input{std::string(bytes)};
  auto read = read_plan_csv(input, source, problem.named);
  if (!read.ok()) return fail(read.error());
  Solution solution = std::move(read).value();
  const bool is_one = problem.named.arenas.size() == 1;
  if (is_one && !capacities.value().empty() && capacities.value().front()) {
    solution.height = std::min(solution.height, *capacities.value().front());
  }
  Status judged = validate_named(problem.named, solution);
  if (judged.ok()) judged = check_capacities(problem.named, solution, capacities.value());
  if (!judged.ok()) return fail({judged.error().code, source + ": " + judged.error().message});
  const auto heights = arena_heights(problem.named.problem, solution.offsets);
  const auto loads = max_loads(problem.named.problem);
  problem.solution = std::move(solution);
  problem.arenas.clear();
  *height = 0;
  for (std::size_t a = 0; a < heights.size(); ++a) {
    problem.arenas.push_back({heights[a], loads[a], PlanStatus::kFeasible});
    // A plan from elsewhere may end anywhere.
    *height += std::min(heights[a].value, std::numeric_limits<std::int64_t>::max() - *height);
  }
  return EBBTIDE_OK;
}

ebbtide_status get_arena(const ebbtide_problem& problem, std::size_t index, ebbtide_arena* arena) {
  const NamedProblem& named = problem.named;
  if (index >= named.arenas.size()) return fail(invalid("there is no such arena"));
  if (const Status checked = check_named(named); !checked.ok()) return fail(checked.error());
  ebbtide_arena filled{};
  filled.name = named.arenas[index].c_str();
  for (const Buffer& buffer : named.problem.buffers) filled.buffers += buffer.arena == index;
  filled.has_plan = index < problem.arenas.size() ? 1 : 0;
  if (filled.has_plan != 0) {
    const ArenaPlan& plan = problem.arenas[index];
    filled.height_bytes = plan.height.value;
    filled.lower_bound_bytes = plan.lower_bound.value;
    filled.state = static_cast<std::int32_t>(plan.status);
  } else {
    filled.lower_bound_bytes = max_loads(named.problem)[index].value;
    filled.state = EBBTIDE_PLAN_UNKNOWN;
  }
  copy_known(filled, arena);
  return EBBTIDE_OK;
}

Status set_capacity(ebbtide_problem& problem, std::string_view name, std::int64_t bytes) {
  const auto& arenas = problem.named.arenas;
  const auto found = std::find(arenas.begin(), arenas.end(), name);
  if (found == arenas.end()) return invalid("the problem has no arena " + quoted(name));
  problem.capacities.resize(arenas.size());
  auto& capacity = problem.capacities[static_cast<std::size_t>(found - arenas.begin())];
  capacity = bytes < 0 ? std::nullopt : std::optional(Bytes{bytes});
  return Nothing{};
}

}  // namespace
}  // namespace ebbtide

using ebbtide::fail;
using ebbtide::guarded;

ebbtide_status ebbtide_problem_new(ebbtide_problem** problem) {
  return guarded([&] {
    *problem = new ebbtide_problem;
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_problem_read(const char* bytes, size_t size, const char* source, int device,
                                    ebbtide_problem** problem) {
  return guarded([&] {
    auto read = ebbtide::read_bytes({bytes, size}, source, device);
    if (!read.ok()) return fail(read.error());
    *problem = new ebbtide_problem(std::move(read).value());
    return EBBTIDE_OK;
  });
}

void ebbtide_problem_free(ebbtide_problem* problem) { delete problem; }

ebbtide_status ebbtide_problem_add(ebbtide_problem* problem, const char* id, int64_t size,
                                   int64_t alignment, int64_t offset, const int64_t* ticks,
                                   size_t lives) {
  return ebbtide_problem_add_to(problem, "", id, size, alignment, offset, ticks, lives);
}

ebbtide_status ebbtide_problem_add_to(ebbtide_problem* problem, const char* arena, const char* id,
                                      int64_t size, int64_t alignment, int64_t offset,
                                      const int64_t* ticks, size_t lives) {
  return guarded([&] {
    ebbtide::Buffer buffer{ebbtide::Bytes{size}, {}, ebbtide::Bytes{alignment}, std::nullopt};
    for (std::size_t i = 0; i < lives; ++i) {
      buffer.live.push_back({ebbtide::Tick{ticks[2 * i]}, ebbtide::Tick{ticks[2 * i + 1]}});
    }
    if (offset >= 0) buffer.fixed = ebbtide::Offset{offset};
    return ebbtide::status_of(ebbtide::add(*problem, arena, id, std::move(buffer)));
  });
}

ebbtide_status ebbtide_problem_get_info(const ebbtide_problem* problem,
                                        ebbtide_problem_info* info) {
  return guarded([&] {
    const auto checked = ebbtide::check_named(problem->named);
    if (!checked.ok()) return fail(checked.error());
    ebbtide_problem_info filled{};
    filled.buffers = static_cast<std::int64_t>(problem->named.ids.size());
    for (const ebbtide::Bytes load : ebbtide::max_loads(problem->named.problem)) {
      filled.lower_bound_bytes += load.value;
    }
    filled.device = problem->device;
    filled.streams = static_cast<std::int32_t>(problem->streams);
    ebbtide::copy_known(filled, info);
    return EBBTIDE_OK;
  });
}

size_t ebbtide_problem_arenas(const ebbtide_problem* problem) {
  return problem->named.arenas.size();
}

ebbtide_status ebbtide_problem_get_arena(const ebbtide_problem* problem, size_t index,
                                         ebbtide_arena* arena) {
  return guarded([&] { return ebbtide::get_arena(*problem, index, arena); });
}

ebbtide_status ebbtide_problem_set_capacity(ebbtide_problem* problem, const char* arena,
                                            int64_t bytes) {
  return guarded([&] { return ebbtide::status_of(ebbtide::set_capacity(*problem, arena, bytes)); });
}

ebbtide_status ebbtide_problem_plan(ebbtide_problem* problem, const ebbtide_plan_options* options,
                                    ebbtide_plan_result* result) {
  return guarded([&] { return ebbtide::plan(*problem, options, result); });
}

ebbtide_status ebbtide_problem_get_offsets(const ebbtide_problem* problem, int64_t* offsets,
                                           size_t capacity) {
  return guarded([&] {
    if (!problem->solution) return fail(ebbtide::invalid("the problem has no plan yet"));
    const auto& all = problem->solution->offsets;
    std::transform(all.begin(),
                   all.begin() + static_cast<std::ptrdiff_t>(std::min(capacity, all.size())),
                   offsets, [](ebbtide::Offset offset) { return offset.value; });
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_problem_csv(ebbtide_problem* problem, const char** text, size_t* size) {
  return guarded([&] {
    const auto checked = ebbtide::check_named(problem->named);
    if (!checked.ok()) return fail(checked.error());
    std::ostringstream output;
    const auto& solution = problem->solution;
    ebbtide::write_problem_csv(output, problem->named, solution ? &*solution : nullptr);
    problem->csv = std::move(output).str();
    *text = problem->csv.c_str();
    *size = problem->csv.size();
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_problem_check(ebbtide_problem* problem, const char* bytes, size_t size,
                                     const char* source, int64_t capacity, int64_t* height) {
  return guarded([&] {
    return ebbtide::check_plan(*problem, {bytes, size}, source, capacity, height);
  });
}
