// Events that are used again: making one costs more than recording it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "allocator/device/copy_device.h"

namespace ebbtide {

// Serialised by its owner. An event may come back while waits on it are still queued: they keep the
// place that they were given (CopyDevice::record).
class EventPool {
 public:
  explicit EventPool(CopyDevice& device) : device_(device) {}
  ~EventPool() {
    for (const EventId event : free_) device_.destroy_event(event);
  }
  EventPool(const EventPool&) = delete;
  EventPool& operator=(const EventPool&) = delete;

  Result<EventId> take() {
    if (free_.empty()) return device_.create_event();
    const EventId event = free_.back();
    free_.pop_back();
    return event;
  }
  // `users` hold it from now on: it is back when all of them have given it back.
  void share(EventId event, std::size_t users) {
    if (users > 1) users_[event.value] = users;
  }
  // "No event" is taken too, and dropped.
  void give_back(EventId event) {
    if (event.value == 0) return;
    if (!users_.empty()) {
      const auto shared = users_.find(event.value);
      if (shared != users_.end() && --shared->second > 0) return;
      if (shared != users_.end()) users_.erase(shared);
    }
    free_.push_back(event);
  }

 private:
  CopyDevice& device_;
  std::vector<EventId> free_;
  std::unordered_map<std::uint64_t, std::size_t> users_;  // of shared events: who has not given it back
};

}  // namespace ebbtide
