// Errors and handles of the runtime's stand-in.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "dryrun/core/simulator.h"

namespace ebbtide::dryrun {

// Keeps `error` for cudaGetLastError and returns it.
cudaError_t note(cudaError_t error);

// Runs the calling thread's start of work, see cudart/companion.cpp; cheap after the first call.
void enter();

inline bool is_device(int device) {
  return device >= 0 && device < Simulator::instance().device_count();
}

// What a cudaStream_t made here points to; null and the two special values are the default streams.
struct Stream {
  int device;
  unsigned int flags;
  int priority;
};

// What a cudaEvent_t points to. Work ends at once, so the host's clock is the device's.
struct Event {
  std::int64_t time_ns = 0;
  bool recorded = false;
  unsigned int flags = 0;
};

}  // namespace ebbtide::dryrun
