// The thread that carries events from the ring to the trace file.
#pragma once

#include <memory>
#include <string>

#include "allocator/base/result.h"
#include "profiler/event_ring.h"

namespace ebbtide {

// Owns the file and its thread; the ring belongs to the caller and must outlive it. All functions
// may be called from any thread. The training threads never wait for the disk: when it is too slow
// the ring drops events and counts them.
//
// A process that was forked off has no writing thread and must not touch its parent's file: there,
// flush(), close() and destruction do nothing (the ring fills up and drops).
class TraceWriter {
 public:
  // Creates or replaces the file at `path` and begins to write.
  static Result<std::unique_ptr<TraceWriter>> open(const std::string& path, EventRing& ring);
  ~TraceWriter();

  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  // At return, every event recorded before the call is in the file.
  Status flush();
  // Disables the ring, writes what is left and the totals, joins the thread. Safe at exit; a second
  // call returns what the first did. An error is the first one that writing met.
  Status close();

 private:
  struct State;
  explicit TraceWriter(std::unique_ptr<State> state);
  bool is_in_forked_child() const;

  std::unique_ptr<State> state_;
};

}  // namespace ebbtide
