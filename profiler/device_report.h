// Everything the report at exit says of one device: the fields of ebbtide_stats, strongly typed.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "allocator/base/units.h"
#include "allocator/runtime/counters.h"

namespace ebbtide {

struct DeviceReport {
  int device = 0;                // -1: host memory
  bool serving = false;          // a plan is in force
  bool observe_only = false;     // by EBBTIDE=observe: there never is a plan
  bool plan_was_loaded = false;  // so nothing was observed before it

  Bytes live, peak_live;          // requested bytes
  Bytes reserved, peak_reserved;  // held from the device: the arena and upstream's segments
  Bytes arena, peak_arena;
  Bytes plan_height;       // of the plan in force
  Bytes plan_lower_bound;  // largest sum of live bytes in it

  ServedCount all, planned, gap, diverged;  // since the start; requested bytes
  ServedCount settled, settled_planned;     // in rounds after the first plan came into force

  std::array<std::int64_t, kDivergenceCount> divergences{};
  std::string first_divergence;  // in words; empty when there was none

  std::int64_t rounds = 0;
  std::int64_t planned_rounds = 0;  // followed a program to their end
  std::int64_t programs = 0;
  std::int64_t plans = 0;
  std::int64_t inline_plans = 0;  // made on the training thread
  std::int64_t planning_ns = 0;
  std::int64_t longest_planning_ns = 0;
  std::int64_t upstream_trims = 0;
  Bytes observed_peak_reserved;  // upstream's own peak while only observing; 0: not known
  std::int64_t lost_events = 0;
};

}  // namespace ebbtide
