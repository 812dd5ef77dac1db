// Copies between host memory and host memory on threads of their own: what CPU tensors swap with.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "allocator/device/copy_device.h"

namespace ebbtide {

// A stream is a thread with a queue. The compute stream is whoever calls: its work so far is done
// when it calls, and its wait is a wait of the caller. Nothing is pinned.
//
// Invariants, guarded by one lock that no copy is made under: (1) an event's `reached` never
// exceeds its `recorded`, and both only grow; (2) a stream's thread lives as long as the stream.
class HostCopyDevice final : public CopyDevice {
 public:
  HostCopyDevice() = default;
  ~HostCopyDevice() override;
  HostCopyDevice(const HostCopyDevice&) = delete;
  HostCopyDevice& operator=(const HostCopyDevice&) = delete;

  Result<StreamId> create_stream() override;
  void destroy_stream(StreamId stream) override;
  Result<EventId> create_event() override;
  void destroy_event(EventId event) override;
  Status record(EventId event, StreamId stream) override;
  Status wait(StreamId stream, EventId event) override;
  bool is_done(EventId event) override;
  std::optional<std::int64_t> elapsed_ns(EventId from, EventId to) override;
  Status copy(void* target, const void* source, Bytes bytes, StreamId stream) override;
  Status synchronize(StreamId stream) override;
  Status pin(void*, Bytes) override { return Nothing{}; }
  void unpin(void*) override {}
  std::optional<int> numa_node() const override { return std::nullopt; }

 private:
  struct Event {
    std::int64_t recorded = 0;  // times that a record was queued
    std::int64_t reached = 0;   // the latest of them that was carried out
    std::int64_t time_ns = 0;   // when that was, steady clock
  };
  struct Operation {
    enum class Kind : std::uint8_t { kCopy, kRecord, kWait, kStop } kind;
    void* target = nullptr;
    const void* source = nullptr;
    Bytes bytes = {};
    std::shared_ptr<Event> event = {};
    std::int64_t turn = 0;  // the record that is carried out or waited for
  };
  struct Stream {
    std::deque<Operation> queue;
    std::int64_t queued = 0;   // operations ever queued
    std::int64_t carried = 0;  // operations ever carried out
    std::thread thread;
  };

  void run(Stream& stream);
  void carry_out(const Operation& operation, std::unique_lock<std::mutex>& lock);
  void queue(Stream& stream, Operation operation);
  Stream* find(StreamId stream);
  std::shared_ptr<Event> find(EventId event);

  std::mutex lock_;  // guards everything below, events and queues included
  std::condition_variable changed_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Stream>> streams_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Event>> events_;
  std::uint64_t last_id_ = 0;
};

}  // namespace ebbtide
