#include "profiler/event_ring.h"

#include <time.h>

#include <algorithm>
#include <bit>

#include "allocator/base/check.h"

namespace ebbtide {
namespace {

constexpr std::size_t kMinCapacity = 2;

std::uint64_t steady_time_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// initial-exec, because the default model of a shared library may allocate at a thread's first use.
__attribute__((tls_model("initial-exec"))) constinit thread_local std::uint32_t thread_number = 0;

std::uint32_t this_thread_number() {
  static constinit std::atomic<std::uint32_t> count{0};
  if (thread_number == 0) thread_number = count.fetch_add(1, std::memory_order_relaxed) + 1;
  return thread_number;
}

}  // namespace

EventRing::EventRing(std::size_t capacity, TimeStamp time_stamp)
    : mask_(std::bit_ceil(std::max(capacity, kMinCapacity)) - 1), time_stamp_(time_stamp) {
  EBBTIDE_CHECK(capacity > 0);
  slots_ = std::make_unique<Slot[]>(mask_ + 1);
  for (std::size_t i = 0; i <= mask_; ++i) slots_[i].sequence.store(i, std::memory_order_relaxed);
}

void EventRing::record(const EventRecord& event) noexcept {
  if (!enabled_.load(std::memory_order_relaxed)) return;
  std::uint64_t time_ns = event.time_ns;
  if (time_ns == 0 && time_stamp_ == TimeStamp::kTaken) time_ns = steady_time_ns();

  std::uint64_t tick = head_.load(std::memory_order_relaxed);
  Slot* slot = nullptr;
  for (;;) {
    slot = &slots_[tick & mask_];
    const std::uint64_t sequence = slot->sequence.load(std::memory_order_acquire);
    if (sequence == tick) {
      if (head_.compare_exchange_weak(tick, tick + 1, std::memory_order_relaxed)) break;
    } else if (sequence < tick) {
      lost_.fetch_add(1, std::memory_order_relaxed);
      return;
    } else {
      tick = head_.load(std::memory_order_relaxed);
    }
  }
  slot->event = event;
  slot->event.tick = tick;
  slot->event.time_ns = time_ns;
  if (event.thread == 0) slot->event.thread = this_thread_number();
  slot->sequence.store(tick + 1, std::memory_order_release);
}

std::size_t EventRing::drain(std::span<EventRecord> out) noexcept {
  std::uint64_t tick = tail_.load(std::memory_order_relaxed);
  std::size_t count = 0;
  for (; count < out.size(); ++count, ++tick) {
    Slot& slot = slots_[tick & mask_];
    if (slot.sequence.load(std::memory_order_acquire) != tick + 1) break;
    out[count] = slot.event;
    slot.sequence.store(tick + capacity(), std::memory_order_release);
  }
  tail_.store(tick, std::memory_order_release);
  return count;
}

bool EventRing::is_valid() const noexcept {
  // Read in this order, a concurrent record or drain can only widen the gap that is allowed.
  const std::uint64_t drained_before = drained();
  const std::uint64_t recorded_now = recorded();
  return drained_before <= recorded_now && recorded_now <= drained() + capacity();
}

}  // namespace ebbtide
