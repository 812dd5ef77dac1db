// Errors and handles of the runtime's stand-in.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "dryrun/core/capture.h"
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

// CUDA's error for what the rules of captures (core/capture.h) say; noted.
cudaError_t capture_error(CaptureError error);
// Whether something can be queued on a stream: not once its capture is invalid.
cudaError_t check_capture(cudaStream_t stream);
// For calls that captures may forbid to the thread: those are invalid then.
inline cudaError_t do_unsafe() { return capture_error(Captures::instance().do_unsafe()); }

// What a cudaEvent_t points to.
struct Event {
  Moment moment;
  CapturedPoint point;  // its moment means nothing where this is in a capture
  bool recorded = false;
  unsigned int flags = 0;
};

}  // namespace ebbtide::dryrun
