// How many bytes are alive and how many are held for them, with their peaks.
#pragma once

#include <atomic>
#include <cstdint>

#include "allocator/base/units.h"

namespace ebbtide {

// What upstream holds is changed without a lock, by atomic read-modify-writes; what is in the arena with the engine's lock, by
// plain stores. Everything may be read by anyone: a sum that others change at the same moment is that of one moment between.
//
// Peaks see every change. A block of the arena may be on its way to other processors while upstream's come and go: then all was
// as if it had come after those. Where that would not do, because they stay, it is looked at again before anything leaves the
// arena, and the lock that was taken in between has shown each side what the other has.
class LiveBytes {
 public:
  // Of upstream's blocks.
  void add(Bytes size) {
    const std::int64_t upstream = upstream_.fetch_add(size.value, std::memory_order_seq_cst) + size.value;
    raise(upstream + in_arena_.load(std::memory_order_seq_cst));
    raise(peak_held_, upstream + extent_.load(std::memory_order_relaxed));
  }
  void remove(Bytes size) { upstream_.fetch_sub(size.value, std::memory_order_seq_cst); }
  // Of the arena's. With the engine's lock.
  void add_in_arena(Bytes size) { raise(change_in_arena(size) + upstream_.load(std::memory_order_seq_cst)); }
  void remove_from_arena(Bytes size) {
    raise(live().value);
    change_in_arena(Bytes{} - size);
  }
  // The arena's memory, whatever is alive in it. With the engine's lock.
  void set_extent(Bytes extent) {
    extent_.store(extent.value, std::memory_order_relaxed);
    raise(peak_held_, held().value);
  }

  Bytes live() const { return {upstream_.load(std::memory_order_seq_cst) + in_arena_.load(std::memory_order_relaxed)}; }
  Bytes live_upstream() const { return {upstream_.load(std::memory_order_relaxed)}; }
  Bytes held() const { return {upstream_.load(std::memory_order_relaxed) + extent_.load(std::memory_order_relaxed)}; }
  Bytes peak_live() const { return {peak_live_.load(std::memory_order_relaxed)}; }
  Bytes peak_held() const { return {peak_held_.load(std::memory_order_relaxed)}; }
  void reset_peak_live() { peak_live_.store(live().value, std::memory_order_relaxed); }

 private:
  using Count = std::atomic<std::int64_t>;

  static void raise(Count& peak, std::int64_t value) {
    std::int64_t seen = peak.load(std::memory_order_relaxed);
    if (value <= seen) [[likely]] return;
    while (value > seen && !peak.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
  }
  void raise(std::int64_t live) { raise(peak_live_, live); }
  std::int64_t change_in_arena(Bytes by) {
    const std::int64_t now = in_arena_.load(std::memory_order_relaxed) + by.value;
    in_arena_.store(now, std::memory_order_release);
    return now;
  }

  Count upstream_{0}, in_arena_{0}, extent_{0};
  Count peak_live_{0}, peak_held_{0};
};

}  // namespace ebbtide
