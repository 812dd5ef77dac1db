// Plans are made, and those from elsewhere judged.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <sstream>
#include <type_traits>

#include "allocator/plan/anytime.h"
#include "allocator/plan/csv_table.h"
#include "hooks/c_status.h"
#include "hooks/plan_problem.h"

namespace ebbtide {
namespace {

static_assert(static_cast<int>(PlanStatus::kFeasible) == EBBTIDE_PLAN_FEASIBLE);
static_assert(static_cast<int>(PlanStatus::kOptimal) == EBBTIDE_PLAN_OPTIMAL);
static_assert(static_cast<int>(PlanStatus::kInfeasible) == EBBTIDE_PLAN_INFEASIBLE);
static_assert(static_cast<int>(PlanStatus::kUnknown) == EBBTIDE_PLAN_UNKNOWN);

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

}  // namespace

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

}  // namespace ebbtide
