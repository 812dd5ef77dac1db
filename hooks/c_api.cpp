#include "hooks/ebbtide.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "hooks/c_status.h"
#include "hooks/registry.h"
#include "profiler/trace_summary.h"

namespace ebbtide {
namespace {

static_assert(kDivergenceCount == EBBTIDE_DIVERGENCE_COUNT);

ebbtide_stats stats_of(const DeviceReport& r) {
  ebbtide_stats s{};
  s.device = r.device;
  s.serving = r.serving ? 1 : 0;
  s.live_bytes = r.live.value;
  s.peak_live_bytes = r.peak_live.value;
  s.reserved_bytes = r.reserved.value;
  s.peak_reserved_bytes = r.peak_reserved.value;
  s.arena_bytes = r.arena.value;
  s.peak_arena_bytes = r.peak_arena.value;
  s.plan_height_bytes = r.plan_height.value;
  s.plan_lower_bound_bytes = r.plan_lower_bound.value;
  s.allocations = r.all.requests;
  s.planned_allocations = r.planned.requests;
  s.gap_allocations = r.gap.requests;
  s.diverged_allocations = r.diverged.requests;
  s.allocated_bytes = r.all.bytes.value;
  s.planned_bytes = r.planned.bytes.value;
  s.gap_bytes = r.gap.bytes.value;
  s.diverged_bytes = r.diverged.bytes.value;
  s.settled_allocations = r.settled.requests;
  s.settled_planned_allocations = r.settled_planned.requests;
  s.settled_allocated_bytes = r.settled.bytes.value;
  s.settled_planned_bytes = r.settled_planned.bytes.value;
  std::copy(r.divergences.begin(), r.divergences.end(), s.divergences);
  copy_text(r.first_divergence, s.first_divergence, sizeof(s.first_divergence));
  s.rounds = r.rounds;
  s.planned_rounds = r.planned_rounds;
  s.programs = r.programs;
  s.plans = r.plans;
  s.inline_plans = r.inline_plans;
  s.planning_ns = r.planning_ns;
  s.longest_planning_ns = r.longest_planning_ns;
  s.upstream_trims = r.upstream_trims;
  s.observed_peak_reserved_bytes = r.observed_peak_reserved.value;
  s.lost_events = r.lost_events;
  return s;
}

ebbtide_trace_summary summary_of(const TraceSummary& t) {
  ebbtide_trace_summary s{};
  s.device = t.device;
  s.truncated = t.end == TraceEnd::kComplete ? 0 : 1;
  s.events = t.events;
  s.allocations = t.allocations;
  s.frees = t.frees;
  s.peak_live_bytes = t.peak_live.value;
  s.live_bytes_at_end = t.live.value;
  s.peak_reserved_bytes = t.peak_reserved.value;
  s.planned_allocations = t.planned_allocations;
  s.gap_allocations = t.gap_allocations;
  s.diverged_allocations = t.diverged_allocations;
  s.allocated_bytes = t.allocated.value;
  s.planned_bytes = t.planned.value;
  s.gap_bytes = t.gap.value;
  s.diverged_bytes = t.diverged.value;
  s.rounds = t.rounds;
  s.plans = t.plans;
  s.plan_height_bytes = t.plan_height.value;
  s.duration_ns = t.duration_ns;
  s.lost_events = t.lost_events;
  return s;
}

}  // namespace
}  // namespace ebbtide

using ebbtide::guarded;
using ebbtide::Registry;

const char* ebbtide_version(void) { return EBBTIDE_VERSION_TEXT; }

const char* ebbtide_last_error(void) { return ebbtide::last_error().c_str(); }

ebbtide_status ebbtide_check_settings(void) {
  return guarded([] {
    const Registry& registry = Registry::get();
    if (!registry.settings().ok()) return ebbtide::fail(registry.settings().error());
    if (!registry.bad_plan().empty()) {
      return ebbtide::fail({ebbtide::ErrorCode::kBadPlan, registry.bad_plan()});
    }
    return EBBTIDE_OK;
  });
}

int ebbtide_mode(void) {
  int mode = 0;
  guarded([&] {
    mode = static_cast<int>(Registry::get().mode());
    return EBBTIDE_OK;
  });
  return mode;
}

ebbtide_status ebbtide_mark(ebbtide_mark_kind kind, uint64_t source) {
  return ebbtide_mark_input(kind, source, nullptr, 0);
}

ebbtide_status ebbtide_mark_input(ebbtide_mark_kind kind, uint64_t source, const int64_t* extents, size_t count) {
  return guarded([&] {
    if (kind < EBBTIDE_MARK_STEP || kind > EBBTIDE_MARK_OPTIMIZER_END) {
      return ebbtide::fail({ebbtide::ErrorCode::kInvalidArgument, "ebbtide_mark: unknown kind"});
    }
    if (extents == nullptr && count > 0) {
      return ebbtide::fail({ebbtide::ErrorCode::kInvalidArgument, "ebbtide_mark_input: extents is null"});
    }
    const ebbtide::Extents input(extents, extents + std::min<size_t>(count, EBBTIDE_MAX_EXTENTS));
    if (!std::all_of(input.begin(), input.end(), ebbtide::is_extent)) {
      return ebbtide::fail({ebbtide::ErrorCode::kInvalidArgument, "ebbtide_mark_input: an extent is 2^50 or more"});
    }
    Registry::get().mark(static_cast<ebbtide::MarkKind>(kind), source, input);
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_step(void) { return ebbtide_mark(EBBTIDE_MARK_STEP, 0); }

ebbtide_status ebbtide_warmup_begin(void) { return ebbtide_step(); }

ebbtide_status ebbtide_warmup_end(void) {
  const ebbtide_status status = ebbtide_step();
  return status == EBBTIDE_OK ? ebbtide_wait_for_plans() : status;
}

ebbtide_status ebbtide_wait_for_plans(void) {
  return guarded([] {
    Registry::get().settle();
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_get_stats(int device, ebbtide_stats* stats) {
  return guarded([&] {
    const ebbtide::Result<ebbtide::DeviceReport> report = Registry::get().report(device);
    if (!report.ok()) return ebbtide::fail(report.error());
    ebbtide::copy_known(ebbtide::stats_of(report.value()), stats);
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_get_step_plan(int device, int64_t* height_bytes, int64_t* budget_bytes) {
  return guarded([&] {
    const ebbtide::Engine* engine = Registry::get().find(device);
    if (engine == nullptr) {
      return ebbtide::fail({ebbtide::ErrorCode::kUnsupported, "no adaptor serves device " + std::to_string(device)});
    }
    const ebbtide::Engine::StepPlan plan = engine->step_plan();
    *height_bytes = plan.height.value;
    *budget_bytes = plan.budget.value;
    return EBBTIDE_OK;
  });
}

size_t ebbtide_devices(int* devices, size_t capacity) {
  std::size_t count = 0;
  guarded([&] {
    const std::vector<int> found = Registry::get().devices();
    count = found.size();
    std::copy_n(found.begin(), std::min(capacity, count), devices);
    return EBBTIDE_OK;
  });
  return count;
}

size_t ebbtide_report(char* buffer, size_t capacity) {
  std::size_t length = 0;
  guarded([&] {
    const std::string text = Registry::get().report_text();
    length = text.size();
    if (capacity > 0) ebbtide::copy_text(text, buffer, capacity);
    return EBBTIDE_OK;
  });
  return length;
}

ebbtide_status ebbtide_summarize_trace(const char* path, ebbtide_trace_summary* summary) {
  return guarded([&] {
    const ebbtide::Result<ebbtide::TraceSummary> read = ebbtide::summarize_trace(path);
    if (!read.ok()) return ebbtide::fail(read.error());
    ebbtide::copy_known(ebbtide::summary_of(read.value()), summary);
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_finish(void) {
  return guarded([] {
    Registry::get().finish();
    return EBBTIDE_OK;
  });
}
