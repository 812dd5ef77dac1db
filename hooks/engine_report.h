// An engine's counters as the report that the profiler renders.
#pragma once

#include <string>

#include "allocator/runtime/engine.h"
#include "profiler/device_report.h"

namespace ebbtide {

DeviceReport report_of(const Engine& engine);

// One JSON object; keys are the field names of ebbtide_stats, sizes in bytes.
std::string json_of(const DeviceReport& report);

}  // namespace ebbtide
