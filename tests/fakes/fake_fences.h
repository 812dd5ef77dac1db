// Fences that only write down what was asked of them.
#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "allocator/device/stream_fences.h"

namespace ebbtide::fakes {

// The log reads "record 7 on 2" and "wait 7 on 0". Thread-safe.
class FakeFences final : public StreamFences {
 public:
  EventId record(StreamId stream) override {
    const std::lock_guard lock(lock_);
    const EventId event{++last_event_};
    outstanding_.insert(event.value);
    log_.push_back("record " + std::to_string(event.value) + " on " + std::to_string(stream.value));
    return event;
  }

  void wait_and_destroy(StreamId stream, EventId event) override {
    const std::lock_guard lock(lock_);
    log_.push_back("wait " + std::to_string(event.value) + " on " + std::to_string(stream.value));
    if (outstanding_.erase(event.value) == 0) misuses_ += 1;
  }

  std::vector<std::string> log() const {
    const std::lock_guard lock(lock_);
    return log_;
  }
  // Events recorded and not yet waited for.
  std::size_t outstanding() const {
    const std::lock_guard lock(lock_);
    return outstanding_.size();
  }
  // Waits for events that never were, or that were destroyed by an earlier wait.
  int misuses() const {
    const std::lock_guard lock(lock_);
    return misuses_;
  }

 private:
  mutable std::mutex lock_;
  std::vector<std::string> log_;
  std::set<std::uint64_t> outstanding_;
  std::uint64_t last_event_ = 0;
  int misuses_ = 0;
};

}  // namespace ebbtide::fakes
