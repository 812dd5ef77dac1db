// Streams as the stand-ins hand them out, and what a launch on one costs.
#pragma once

#include <cstdint>

#include "dryrun/core/export.h"
#include "dryrun/core/timeline.h"

namespace ebbtide::dryrun {

// What a cudaStream_t made here points to; null, 1 and 2 are the default streams and no objects.
struct Stream {
  int device;
  unsigned int flags;
  int priority;
  StreamClock* clock;
};

inline bool is_stream_object(const void* stream) {
  return reinterpret_cast<std::uintptr_t>(stream) > 2;
}

// The clock of a stream handle; for the default streams, the current device's.
EBBTIDE_DRYRUN_API StreamClock& clock_of(const void* stream);

// A kernel was launched. Within an operator it is noted, and the companion says what the operator
// took; outside of any its time is not known.
EBBTIDE_DRYRUN_API void note_launch(const void* stream);

// Work whose shapes the caller knows (BLAS).
EBBTIDE_DRYRUN_API void note_work(const void* stream, const Work& work);

// A copy or fill of device memory; `blocks`: as cudaMemcpy does.
EBBTIDE_DRYRUN_API void note_copy(const void* stream, const void* target, const void* source,
                                  std::size_t size, bool blocks);
EBBTIDE_DRYRUN_API void note_fill(const void* stream, std::size_t size);

}  // namespace ebbtide::dryrun
