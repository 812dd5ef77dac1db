#include "hooks/engine_report.h"

#include <algorithm>

#include <fmt/format.h>

namespace ebbtide {

DeviceReport report_of(const Engine& engine) {
  const Engine::Snapshot now = engine.snapshot();
  const Counters& counters = now.counters;
  DeviceReport report;
  report.device = engine.options().device;
  report.serving = now.serving;
  report.plan_was_loaded = now.plan_was_loaded;
  report.observe_only = engine.options().observe_only;
  report.live = now.live;
  report.peak_live = counters.peak_live;
  report.reserved = now.reserved;
  report.peak_reserved = now.peak_reserved;
  report.arena = now.arena;
  report.peak_arena = now.peak_arena;
  report.plan_height = now.plan_height;
  report.plan_lower_bound = now.plan_lower_bound;
  report.all = {counters.all.requests + counters.small.requests, counters.all.bytes + counters.small.bytes};
  report.planned = counters.planned;
  report.gap = counters.gap;
  report.diverged = counters.diverged;
  report.settled = counters.settled;
  report.settled_planned = counters.settled_planned;
  report.divergences = counters.divergences;
  report.first_divergence = counters.first_divergence;
  report.rounds = counters.rounds;
  report.planned_rounds = counters.planned_rounds;
  report.programs = static_cast<std::int64_t>(now.programs);
  report.plans = now.plans;
  report.inline_plans = counters.inline_plans;
  report.planning_ns = now.planning.total_ns + counters.inline_ns;
  report.longest_planning_ns = std::max(now.planning.longest_ns, counters.longest_inline_ns);
  report.upstream_trims = now.upstream_trims;
  report.observed_peak_reserved = counters.observed_peak_reserved;
  return report;
}

std::string json_of(const DeviceReport& r) {
  return fmt::format(
      R"({{"device": {}, "serving": {}, "peak_live_bytes": {}, "peak_reserved_bytes": {}, )"
      R"("peak_arena_bytes": {}, "plan_height_bytes": {}, "plan_lower_bound_bytes": {}, )"
      R"("allocations": {}, "planned_allocations": {}, "gap_allocations": {}, "diverged_allocations": {}, )"
      R"("allocated_bytes": {}, "planned_bytes": {}, "gap_bytes": {}, "diverged_bytes": {}, )"
      R"("settled_allocated_bytes": {}, "settled_planned_bytes": {}, "rounds": {}, "planned_rounds": {}, )"
      R"("plans": {}, "inline_plans": {}, "longest_planning_ns": {}, "upstream_trims": {}, )"
      R"("observed_peak_reserved_bytes": {}, "lost_events": {}}})",
      r.device, r.serving, r.peak_live.value, r.peak_reserved.value, r.peak_arena.value,
      r.plan_height.value, r.plan_lower_bound.value, r.all.requests, r.planned.requests,
      r.gap.requests, r.diverged.requests, r.all.bytes.value, r.planned.bytes.value,
      r.gap.bytes.value, r.diverged.bytes.value, r.settled.bytes.value,
      r.settled_planned.bytes.value, r.rounds, r.planned_rounds, r.plans, r.inline_plans,
      r.longest_planning_ns, r.upstream_trims, r.observed_peak_reserved.value, r.lost_events);
}

}  // namespace ebbtide
