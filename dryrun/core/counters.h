// Counts of what a program asked of the simulated devices. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>

namespace ebbtide::dryrun {

struct Counters {
  std::atomic<std::int64_t> mallocs{0};
  std::atomic<std::int64_t> frees{0};
  std::atomic<std::int64_t> creates{0};
  std::atomic<std::int64_t> maps{0};
  std::atomic<std::int64_t> unmaps{0};
  std::atomic<std::int64_t> out_of_memory{0};
  std::atomic<std::int64_t> device_synchronizations{0};
  std::atomic<std::int64_t> stream_synchronizations{0};
  std::atomic<std::int64_t> kernel_launches{0};
  std::atomic<std::int64_t> copies{0};
  std::atomic<std::int64_t> communicators{0};
  std::atomic<std::int64_t> uncomputed_reads{0};
  std::atomic<std::int64_t> typical_choices{0};  // operators that chose among what was not computed
  std::atomic<std::int64_t> large_integers{0};  // operators on integers above the compute limit
  std::atomic<std::int64_t> unimplemented_calls{0};
};

}  // namespace ebbtide::dryrun
