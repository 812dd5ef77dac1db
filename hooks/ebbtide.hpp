// The C interface for C++ programs: RAII and values. Header-only; see ebbtide.h for the contracts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <ebbtide/ebbtide.h>

namespace ebbtide {

// Marks the beginning of an iteration.
inline void step() { ebbtide_step(); }
// The same, with the extents of its input (batch, length, ...): see ebbtide_mark_input.
inline void step(const std::vector<std::int64_t>& input) {
  ebbtide_mark_input(EBBTIDE_MARK_STEP, 0, input.data(), input.size());
}

// One iteration inside this scope is observed and, at its end, planned.
class Warmup {
 public:
  Warmup() { ebbtide_warmup_begin(); }
  ~Warmup() { ebbtide_warmup_end(); }
  Warmup(const Warmup&) = delete;
  Warmup& operator=(const Warmup&) = delete;
};

// The five-line report.
inline std::string report() {
  std::string text(ebbtide_report(nullptr, 0), '\0');
  if (!text.empty()) ebbtide_report(text.data(), text.size() + 1);
  return text;
}

// Figures of a device; -1 is host memory. Throws std::runtime_error when no adaptor serves it.
inline ebbtide_stats stats(int device) {
  ebbtide_stats stats{};
  stats.struct_size = sizeof(stats);
  if (ebbtide_get_stats(device, &stats) != EBBTIDE_OK) throw std::runtime_error(ebbtide_last_error());
  return stats;
}

// One memory of several that are planned together, each by itself.
struct ArenaPlan {
  std::string name;
  ebbtide_plan_state state = EBBTIDE_PLAN_UNKNOWN;
  std::int64_t height = 0;
  std::int64_t lower_bound = 0;
};

// What Planner::plan found. Sizes in bytes.
struct Plan {
  ebbtide_plan_state state = EBBTIDE_PLAN_UNKNOWN;
  std::int64_t height = 0;             // the arena's size, or the sum; means nothing without offsets
  std::int64_t lower_bound = 0;        // no plan is lower
  double seconds = 0;
  std::vector<std::int64_t> offsets;   // in the order of the buffers; empty: none was found
  std::vector<ArenaPlan> arenas;       // in the order in which their first buffers came
};

// The planner by itself: buffers with sizes and lifetimes in, offsets out. Needs neither torch nor a
// device. Every function throws std::runtime_error, in the words of ebbtide_last_error(). One thread
// at a time.
class Planner {
 public:
  Planner() {
    ebbtide_problem* made = nullptr;
    check(ebbtide_problem_new(&made));
    problem_.reset(made);
  }
  // The bytes of a CSV file or of a PyTorch memory snapshot; `source` is its name in messages.
  Planner(std::string_view bytes, const std::string& source, int device = -1) {
    ebbtide_problem* made = nullptr;
    check(ebbtide_problem_read(bytes.data(), bytes.size(), source.c_str(), device, &made));
    problem_.reset(made);
  }

  // A buffer that is live in [birth, death), anywhere or at a fixed offset. Buffers of different
  // arenas (device, host) share no addresses.
  void add(const std::string& id, std::int64_t size, std::int64_t birth, std::int64_t death,
           std::int64_t alignment = 1, std::int64_t fixed_offset = -1,
           const std::string& arena = "") {
    const std::int64_t ticks[] = {birth, death};
    check(ebbtide_problem_add_to(problem(), arena.c_str(), id.c_str(), size, alignment, fixed_offset,
                                 ticks, 1));
  }
  // The bytes of an arena that has buffers; -1: as many as needed. With several arenas instead of
  // plan()'s.
  void set_capacity(const std::string& arena, std::int64_t bytes) {
    check(ebbtide_problem_set_capacity(problem(), arena.c_str(), bytes));
  }

  Plan plan(double time_limit = 10, std::int64_t capacity = -1, int threads = 1,
            std::uint64_t seed = 1) {
    const ebbtide_plan_options options{sizeof(options), time_limit, capacity, seed, threads,
                                       nullptr,         nullptr,    nullptr};
    ebbtide_plan_result result{};
    result.struct_size = sizeof(result);
    check(ebbtide_problem_plan(problem(), &options, &result));
    Plan plan{static_cast<ebbtide_plan_state>(result.state), result.height_bytes,
              result.lower_bound_bytes, result.seconds, {}, {}};
    if (result.has_plan == 0) return plan;
    ebbtide_problem_info info{};
    info.struct_size = sizeof(info);
    check(ebbtide_problem_get_info(problem(), &info));
    plan.offsets.resize(static_cast<std::size_t>(info.buffers));
    check(ebbtide_problem_get_offsets(problem(), plan.offsets.data(), plan.offsets.size()));
    for (std::size_t i = 0; i < ebbtide_problem_arenas(problem()); ++i) {
      ebbtide_arena arena{};
      arena.struct_size = sizeof(arena);
      check(ebbtide_problem_get_arena(problem(), i, &arena));
      plan.arenas.push_back({arena.name, static_cast<ebbtide_plan_state>(arena.state),
                             arena.height_bytes, arena.lower_bound_bytes});
    }
    return plan;
  }

 private:
  struct Free {
    void operator()(ebbtide_problem* problem) const { ebbtide_problem_free(problem); }
  };

  static void check(ebbtide_status status) {
    if (status != EBBTIDE_OK) throw std::runtime_error(ebbtide_last_error());
  }
  ebbtide_problem* problem() const { return problem_.get(); }

  std::unique_ptr<ebbtide_problem, Free> problem_;
};

}  // namespace ebbtide
