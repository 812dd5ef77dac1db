// What an engine counts: the numbers behind every report.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "allocator/base/units.h"

namespace ebbtide {

// Why a request that a plan was meant to serve went elsewhere.
enum class Divergence : std::uint8_t {
  kUnexpected = 0,  // the program has no such request here
  kOutgrown = 1,    // larger than the planned place
  kPlaceTaken = 2,  // a block that should be gone still holds the place
  kNoMemory = 3,    // the arena could not grow to the planned place
};
inline constexpr std::size_t kDivergenceCount = 4;
const char* to_string(Divergence cause);

struct ServedCount {
  std::int64_t requests = 0;
  Bytes bytes;

  void add(Bytes size) {
    requests += 1;
    bytes += size;
  }
  void take_back(Bytes size) {
    requests -= 1;
    bytes -= size;
  }
  ServedCount& operator+=(const ServedCount& other) {
    requests += other.requests;
    bytes += other.bytes;
    return *this;
  }
};

// The same, added to without a lock.
class SharedCount {
 public:
  void add(Bytes size) {
    requests_.fetch_add(1, std::memory_order_relaxed);
    bytes_.fetch_add(size.value, std::memory_order_relaxed);
  }
  void take_back(Bytes size) {
    requests_.fetch_sub(1, std::memory_order_relaxed);
    bytes_.fetch_sub(size.value, std::memory_order_relaxed);
  }
  ServedCount read() const {
    return {requests_.load(std::memory_order_relaxed), {bytes_.load(std::memory_order_relaxed)}};
  }

 private:
  std::atomic<std::int64_t> requests_{0}, bytes_{0};
};

// Guarded by the engine's lock. Only requests large enough to be planned are counted, except in
// `small`. What is counted without the lock is added when somebody asks (Engine::snapshot).
// Invariant: all = planned + gap + diverged + unplanned.
struct Counters {
  ServedCount all, planned, gap, diverged, unplanned;
  ServedCount small;            // below the planning threshold; counted, not tracked
  ServedCount settled, settled_planned;  // since the first plan was in force
  std::array<std::int64_t, kDivergenceCount> divergences{};
  std::string first_divergence;
  std::int64_t rounds = 0, planned_rounds = 0;
  std::int64_t inline_plans = 0;
  std::int64_t inline_ns = 0, longest_inline_ns = 0;
  Bytes peak_live;
  Bytes peak_reserved;          // only where upstream caches nothing; else the range knows
  Bytes observed_peak_reserved; // when the first plan came into force
  bool observed_peak_known = false;
};

}  // namespace ebbtide
