// Events that are used again: making one costs more than recording it.
#pragma once

#include <utility>
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
  // "No event" is taken too, and dropped.
  void give_back(EventId event) {
    if (event.value != 0) free_.push_back(event);
  }

 private:
  CopyDevice& device_;
  std::vector<EventId> free_;
};

}  // namespace ebbtide
