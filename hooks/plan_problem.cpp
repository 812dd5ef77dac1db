#include "hooks/plan_problem.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "allocator/plan/csv_table.h"
#include "allocator/plan/lower_bound.h"
#include "allocator/plan/torch_snapshot.h"
#include "allocator/plan/validator.h"
#include "hooks/c_status.h"

namespace ebbtide {
namespace {

std::vector<std::string> names_of(const NamedProblem& named) {
  std::vector<std::string> names;
  for (const std::string& id : named.ids) names.push_back("buffer " + quoted(id));
  return names;
}

}  // namespace

Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

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

Status set_capacity(ebbtide_problem& problem, std::string_view name, std::int64_t bytes) {
  const auto& arenas = problem.named.arenas;
  const auto found = std::find(arenas.begin(), arenas.end(), name);
  if (found == arenas.end()) return invalid("the problem has no arena " + quoted(name));
  problem.capacities.resize(arenas.size());
  auto& capacity = problem.capacities[static_cast<std::size_t>(found - arenas.begin())];
  capacity = bytes < 0 ? std::nullopt : std::optional(Bytes{bytes});
  return Nothing{};
}

Result<Capacities> capacities_of(const ebbtide_problem& problem, std::int64_t bytes) {
  if (bytes < 0) return problem.capacities;
  if (problem.named.arenas.size() == 1) return Capacities{Bytes{bytes}};
  return invalid("the problem has " + std::to_string(problem.named.arenas.size()) +
                 " arenas: give each its capacity (ebbtide_problem_set_capacity)");
}

Status check_named(const NamedProblem& named) {
  const Status checked = check(named.problem);
  return checked.ok() ? checked : check(named.problem, names_of(named));
}
Status validate_named(const NamedProblem& named, const Solution& solution) {
  const Status judged = validate(named.problem, solution);
  return judged.ok() ? judged : validate(named.problem, solution, names_of(named));
}

std::vector<Bytes> max_loads(const Problem& problem) {
  if (arena_count(problem) == 1) return {max_load(problem)};
  std::vector<Bytes> loads;
  for (const ArenaProblem& arena : split_arenas(problem)) loads.push_back(max_load(arena.problem));
  return loads;
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

}  // namespace ebbtide
