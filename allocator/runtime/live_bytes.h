// How many bytes are alive and how many are held for them, with their peaks.
#pragma once

#include <atomic>
#include <cstdint>

#include "allocator/base/units.h"

namespace ebbtide {

// Thread-safe without a lock. A sum that others change at the same moment is that of one moment between; peaks see every
// single change.
class LiveBytes {
 public:
  void add(Bytes size) { raise(live_.fetch_add(size.value, std::memory_order_relaxed) + size.value); }
  void remove(Bytes size) { live_.fetch_sub(size.value, std::memory_order_relaxed); }
  // Memory that is held and in which nothing is alive.
  void set_idle(Bytes size) { idle_.store(size.value, std::memory_order_relaxed); }

  Bytes live() const { return {live_.load(std::memory_order_relaxed)}; }
  Bytes held() const { return {live_.load(std::memory_order_relaxed) + idle_.load(std::memory_order_relaxed)}; }
  Bytes peak_live() const { return {peak_live_.load(std::memory_order_relaxed)}; }
  Bytes peak_held() const { return {peak_held_.load(std::memory_order_relaxed)}; }
  void reset_peak_live() { peak_live_.store(live().value, std::memory_order_relaxed); }

  // Of the running round: by how much more is alive than at its beginning, now and at its highest.
  void begin_round() {
    at_begin_.store(live().value, std::memory_order_relaxed);
    peak_of_round_.store(live().value, std::memory_order_relaxed);
  }
  Bytes live_of_round() const { return {live().value - at_begin_.load(std::memory_order_relaxed)}; }
  Bytes peak_of_round() const {
    return {peak_of_round_.load(std::memory_order_relaxed) - at_begin_.load(std::memory_order_relaxed)};
  }

 private:
  using Count = std::atomic<std::int64_t>;

  static void raise(Count& peak, std::int64_t value) {
    std::int64_t seen = peak.load(std::memory_order_relaxed);
    while (value > seen && !peak.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
  }
  void raise(std::int64_t live) {
    raise(peak_of_round_, live);
    raise(peak_live_, live);
    raise(peak_held_, live + idle_.load(std::memory_order_relaxed));
  }

  Count live_{0}, idle_{0};
  Count peak_live_{0}, peak_held_{0};
  Count at_begin_{0}, peak_of_round_{0};
};

}  // namespace ebbtide
