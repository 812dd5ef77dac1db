// Bytes over virtual time, for the picture under the streams' timeline.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

struct MemorySample {
  int device = 0;
  double time = 0;          // seconds, by the clock of the stream that was given work
  std::int64_t live = 0;    // what the program's allocator has handed out
  std::int64_t held = 0;    // what was taken from the device
  std::int64_t pinned = 0;  // host memory

  bool has_same_bytes(const MemorySample& other) const {
    return live == other.live && held == other.held && pinned == other.pinned;
  }
};

// Keeps the latest samples, of which neighbours differ. Thread-safe.
class EBBTIDE_DRYRUN_API MemoryCurve {
 public:
  void add(const MemorySample& sample);
  // Those of `begin` and later, in the order in which they came.
  std::vector<MemorySample> since(double begin);

 private:
  std::mutex mutex_;
  std::deque<MemorySample> samples_;
};

// Bytes that the program's allocator has handed out on a device; 0 without one that says so.
EBBTIDE_DRYRUN_API void set_live_bytes(std::int64_t (*count)(int device));
std::int64_t live_bytes(int device);

}  // namespace ebbtide::dryrun
