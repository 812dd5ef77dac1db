// A bounded buffer between the threads that allocate and the one thread that writes the trace.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "allocator/base/event.h"

namespace ebbtide {

// Owns its slots. Never blocks, never allocates after construction: a full ring drops the new event
// and counts it. record() may be called by any number of threads; drain() by one at a time.
//
// The ring gives each event its tick, the index of its slot in the order of claiming, so ticks in a
// trace have no holes. Events recorded under one lock (those of one device) keep their order. A
// slot is claimed by compare-and-swap rather than by an unconditional increment, because a claim
// cannot be given back when the ring turns out to be full.
//
// Invariants, with `recorded` = claimed ticks and `drained` = ticks read:
// 1. drained <= recorded <= drained + capacity.
// 2. slot i holds tick t (t mod capacity = i) and may be read iff its sequence is t + 1; it may be
//    claimed for t iff its sequence is t.
class EventRing final : public EventSink {
 public:
  static constexpr std::size_t kDefaultCapacity = std::size_t{1} << 16;  // 4 MiB

  enum class TimeStamp { kTaken, kOmitted };

  // Requires: capacity > 0; rounded up to a power of two, at least 2: in a ring of one slot "holds
  // tick t" and "free for t + 1" would be the same sequence. With kTaken an event that comes
  // without a time gets one (about 20 ns).
  explicit EventRing(std::size_t capacity = kDefaultCapacity,
                     TimeStamp time_stamp = TimeStamp::kTaken);

  // Fills in tick, and time and thread where they are 0. While disabled: one relaxed load, a
  // branch.
  void record(const EventRecord& event) noexcept override;

  void set_enabled(bool enabled) noexcept { enabled_.store(enabled, std::memory_order_relaxed); }
  bool is_enabled() const noexcept { return enabled_.load(std::memory_order_relaxed); }

  // Moves the oldest events to `out`, in tick order; returns how many. 0 also while the oldest one
  // is still being filled in by its thread.
  std::size_t drain(std::span<EventRecord> out) noexcept;

  std::size_t capacity() const noexcept { return mask_ + 1; }
  // Events accepted, read and dropped since construction.
  std::uint64_t recorded() const noexcept { return head_.load(std::memory_order_acquire); }
  std::uint64_t drained() const noexcept { return tail_.load(std::memory_order_acquire); }
  std::uint64_t lost() const noexcept { return lost_.load(std::memory_order_relaxed); }

  bool is_valid() const noexcept;

 private:
  // One cache line each, so that two threads in neighbouring slots do not slow each other down.
  struct alignas(64) Slot {
    std::atomic<std::uint64_t> sequence{0};
    EventRecord event;
  };

  std::size_t mask_;
  TimeStamp time_stamp_;
  std::unique_ptr<Slot[]> slots_;
  alignas(64) std::atomic<bool> enabled_{true};
  alignas(64) std::atomic<std::uint64_t> head_{0};
  std::atomic<std::uint64_t> lost_{0};
  alignas(64) std::atomic<std::uint64_t> tail_{0};
};

}  // namespace ebbtide
