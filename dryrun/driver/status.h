// Shared by the parts of the driver's stand-in.
#pragma once

#include <cuda.h>

#include "dryrun/core/simulator.h"

namespace ebbtide::dryrun {

inline bool is_device(CUdevice device) {
  return device >= 0 && device < Simulator::instance().device_count();
}

inline Bytes bytes_of(std::size_t size) { return {static_cast<std::int64_t>(size)}; }

// A function by the name that programs use, or nullptr. Made by exports/generate.py.
extern "C" void* ebbtide_dryrun_driver_function(const char* name);

}  // namespace ebbtide::dryrun
