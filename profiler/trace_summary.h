// What a trace says about its device, in one struct: the numbers of `ebbtide report`.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <unordered_map>

#include "allocator/base/event.h"
#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "profiler/trace_reader.h"

namespace ebbtide {

// Bytes are requested bytes, as the program asked for them.
struct TraceSummary {
  int device = 0;  // -1: host memory
  TraceEnd end = TraceEnd::kComplete;
  std::string damage;  // in words; empty when the trace is complete

  std::int64_t events = 0;  // of this device, of all kinds
  std::int64_t allocations = 0;
  std::int64_t frees = 0;  // of addresses that were live
  std::int64_t unknown_frees =
      0;                      // of addresses that were not: their allocation is not in the trace
  std::int64_t replaced = 0;  // allocations at a live address: the free is not in the trace
  Bytes live;                 // at the end
  Bytes peak_live;
  Bytes peak_reserved;  // highest of all held from the device; 0: there is no kReserved event

  std::int64_t planned_allocations = 0;
  std::int64_t gap_allocations = 0;
  std::int64_t diverged_allocations = 0;
  Bytes allocated;
  Bytes planned;
  Bytes gap;
  Bytes diverged;

  std::int64_t rounds = 0;
  std::int64_t plans = 0;
  Bytes plan_height;             // of the last plan
  std::int64_t duration_ns = 0;  // from the first to the last event that has a time
  std::int64_t lost_events = 0;  // of the whole trace: which device they were of is unknown
};

// Adds up events of several devices. Not thread-safe. Memory: one entry per live allocation.
// Sums that would overflow stay at the limit, since a trace is a file that anyone may have made.
class TraceSummarizer {
 public:
  void add(std::span<const EventRecord> events);

  // The summary of the device with the most allocated bytes (of equals, the lowest index).
  TraceSummary busiest() const;

 private:
  struct Device {
    TraceSummary summary;
    std::unordered_map<std::uint64_t, Bytes> live;
    std::uint64_t first_ns = 0;  // 0: no event had a time yet
    std::uint64_t last_ns = 0;
    bool has_reserved = false;  // a kReserved event was seen
  };

  static void add(Device& device, const EventRecord& event);
  static void allocate(Device& device, const EventRecord& event);
  static void free(Device& device, const EventRecord& event);

  std::map<int, Device> devices_;
};

// Reads the whole trace. A trace that was cut or damaged is summarised up to there; `end` says so.
Result<TraceSummary> summarize_trace(const std::string& path);

}  // namespace ebbtide
