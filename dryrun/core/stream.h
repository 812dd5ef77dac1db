// Streams as the stand-ins hand them out, and what a launch on one costs.
#pragma once

#include <cstdint>

#include "dryrun/core/capture.h"
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

// Has every kernel outside of operators told of: make() is called where it is launched, what it returns whenever the
// kernel runs (a graph's, each time).
EBBTIDE_DRYRUN_API void set_launch_watch(Deed (*make)());

// Work whose shapes the caller knows (BLAS).
EBBTIDE_DRYRUN_API void note_work(const void* stream, const Work& work);

// A copy or fill of device memory is carried out; `blocks`: as cudaMemcpy does. On a stream that captures it is
// only written down.
EBBTIDE_DRYRUN_API void queue_copy(const void* stream, void* target, const void* source,
                                   std::size_t size, bool blocks);
EBBTIDE_DRYRUN_API void queue_fill(const void* stream, void* target, int value, std::size_t size);
// The same of rows that are apart, as one copy.
struct RowCopy {
  void* target;
  const void* source;
  std::size_t target_pitch, source_pitch, width, height;
};
EBBTIDE_DRYRUN_API void queue_copy(const void* stream, const RowCopy& rows);

}  // namespace ebbtide::dryrun
