// The report at exit, in words.
#pragma once

#include <string>

#include "profiler/device_report.h"

namespace ebbtide {

// "cuda:0", or "cpu" for host memory.
std::string device_name(int device);

// Exactly five lines, each ended by a newline. The Python package renders the same report from a
// trace (python_shim/ebbtide/_report.py): the wording must be changed in both.
std::string five_line_report(const DeviceReport& report);

}  // namespace ebbtide
