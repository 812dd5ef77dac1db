// Errors and handles of the runtime's stand-in.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "dryrun/core/simulator.h"
#include "dryrun/core/stream.h"

namespace ebbtide::dryrun {

// Keeps `error` for cudaGetLastError and returns it.
cudaError_t note(cudaError_t error);

// Runs the calling thread's start of work, see cudart/companion.cpp; cheap after the first call.
void enter();

inline Timeline& timeline() { return Simulator::instance().timeline(); }

inline bool is_device(int device) {
  return device >= 0 && device < Simulator::instance().device_count();
}

// What a cudaEvent_t points to.
struct Event {
  Moment moment;
  bool recorded = false;
  unsigned int flags = 0;
};

}  // namespace ebbtide::dryrun
