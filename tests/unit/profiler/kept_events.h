#pragma once

#include <algorithm>
#include <mutex>
#include <vector>

#include "allocator/base/event.h"

namespace ebbtide {

// Every event in the order in which it came. Any thread may record; what is kept is read once they have ended.
struct KeptEvents final : EventSink {
  std::mutex lock;
  std::vector<EventRecord> events;

  void record(const EventRecord& event) noexcept override {
    const std::lock_guard guard(lock);
    events.push_back(event);
  }

  std::size_t count(Action action) const {
    return static_cast<std::size_t>(std::ranges::count(events, action, &EventRecord::action));
  }
};

}  // namespace ebbtide
