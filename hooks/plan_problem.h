// What stands behind an ebbtide_problem of the C interface, and what is done with one. The C
// functions in plan_api add only what every function of the interface does (c_status.h). Not
// thread-safe for one problem.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "allocator/plan/arenas.h"
#include "allocator/plan/problem_csv.h"
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

using Capacities = std::vector<std::optional<Bytes>>;

Error invalid(std::string message);

// From CSV, or one device of a PyTorch memory snapshot; less than zero: its only one.
Result<ebbtide_problem> read_bytes(std::string_view bytes, const std::string& source, int device);
// A plan from before is dropped.
Status add(ebbtide_problem& problem, const char* arena, const char* id, Buffer buffer);
// Less than zero: none.
Status set_capacity(ebbtide_problem& problem, std::string_view name, std::int64_t bytes);
// Of a problem, where `bytes` >= 0 is the only arena's.
Result<Capacities> capacities_of(const ebbtide_problem& problem, std::int64_t bytes);

// check() and validate(), with names made only for a message.
Status check_named(const NamedProblem& named);
Status validate_named(const NamedProblem& named, const Solution& solution);
// By arena.
std::vector<Bytes> max_loads(const Problem& problem);
ebbtide_status get_arena(const ebbtide_problem& problem, std::size_t index, ebbtide_arena* arena);

ebbtide_status plan(ebbtide_problem& problem, const ebbtide_plan_options* given,
                    ebbtide_plan_result* result);
// A plan from elsewhere, as CSV, becomes the problem's if it is valid.
ebbtide_status check_plan(ebbtide_problem& problem, std::string_view bytes,
                          const std::string& source, std::int64_t capacity, std::int64_t* height);

}  // namespace ebbtide
