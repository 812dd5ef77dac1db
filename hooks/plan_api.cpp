// The C interface of the planner by itself.
#include <algorithm>
#include <sstream>
#include <utility>

#include "hooks/c_status.h"
#include "hooks/plan_problem.h"

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
