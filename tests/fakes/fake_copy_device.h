// A device whose streams run in any order that their events allow, a little at a time, by a seed.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "allocator/device/copy_device.h"

namespace ebbtide::fakes {

// Where tests launch their kernels.
inline constexpr StreamId kCompute{7};

// Copies really move bytes, in parts, whenever chance lets their stream go on; kernels are
// functions that launch() queues on a compute stream, any id that create_stream() did not give.
// After each call some of what is queued runs: how much is chance, too. Not thread-safe.
//
// Every call has a number from 1; a test can have one of them fail. Copies between the host and the
// device must stay within one pinned range, as CUDA's must.
class FakeCopyDevice final : public CopyDevice {
 public:
  // The ids of the first two streams that it creates; for a Swap, those for copies out and in.
  static constexpr StreamId kOut{1001}, kIn{1002};

  struct Options {
    unsigned seed = 1;
    int most_steps_per_call = 4;  // of what is queued, that run behind each call
    Bytes pinnable{std::int64_t{1} << 40};
    bool ignores_waits = false;  // to show that a test would notice
  };

  FakeCopyDevice() : FakeCopyDevice(Options{}) {}
  explicit FakeCopyDevice(Options options) : options_(options), chance_(options.seed) {}
  ~FakeCopyDevice() override {
    EXPECT_EQ(live_events_, 0) << "events leak";
    EXPECT_EQ(live_streams_, 0) << "streams leak";
    EXPECT_TRUE(pinned_.empty()) << "pinned memory leaks";
  }

  // The nth of the calls that can fail, counted from now, does. 0: none.
  void fail_call(int number) { calls_until_failure_ = number; }
  void fail_pins_beyond(Bytes bytes) { options_.pinnable = bytes; }
  int calls() const { return calls_; }
  int host_waits() const { return host_waits_; }
  Bytes pinned_bytes() const {
    Bytes sum;
    for (const auto& [place, bytes] : pinned_) sum += bytes;
    return sum;
  }
  int pins() const { return pins_; }

  // Queues a kernel.
  void launch(StreamId stream, std::function<void()> kernel) {
    Operation operation{Operation::Kind::kKernel};
    operation.kernel = std::move(kernel);
    queue(stream, std::move(operation));
  }
  // Runs one step of a stream that can go on; false when none can.
  bool step() {
    std::vector<Queue*> ready;
    for (auto& [id, stream] : streams_) {
      if (!stream.empty() && !held_.contains(id) && can_run(stream.front()))
        ready.push_back(&stream);
    }
    if (ready.empty()) return false;
    run(*ready[chance_() % ready.size()]);
    ++clock_ns_;
    return true;
  }
  // Holds a stream still until the host waits or everything is to finish.
  void hold(StreamId stream) { held_.insert(stream.value); }
  void finish() {
    held_.clear();
    while (step()) {
    }
    for (const auto& [id, stream] : streams_)
      EXPECT_TRUE(stream.empty()) << "a stream waits for ever";
  }

  Result<StreamId> create_stream() override {
    if (fails()) return failure();
    ++live_streams_;
    return StreamId{kOut.value + static_cast<std::uint64_t>(created_streams_++)};
  }
  void destroy_stream(StreamId stream) override {
    run_until_empty(stream);
    --live_streams_;
  }
  Result<EventId> create_event() override {
    if (fails()) return failure();
    ++live_events_;
    events_[++last_id_] = {};
    return EventId{last_id_};
  }
  void destroy_event(EventId event) override {
    EXPECT_EQ(events_.erase(event.value), 1U) << "an event was destroyed twice";
    --live_events_;
  }
  Status record(EventId event, StreamId stream) override {
    if (fails()) return failure();
    Operation operation{Operation::Kind::kRecord};
    operation.event = event.value;
    operation.turn = ++events_.at(event.value).recorded;
    queue(stream, std::move(operation));
    return Nothing{};
  }
  Status wait(StreamId stream, EventId event) override {
    if (fails()) return failure();
    if (options_.ignores_waits) return Nothing{};
    Operation operation{Operation::Kind::kWait};
    operation.event = event.value;
    operation.turn = events_.at(event.value).recorded;
    queue(stream, std::move(operation));
    return Nothing{};
  }
  bool is_done(EventId event) override {
    const Event& asked = events_.at(event.value);
    return asked.reached >= asked.recorded;
  }
  std::optional<std::int64_t> elapsed_ns(EventId from, EventId to) override {
    if (!is_done(from) || !is_done(to)) return std::nullopt;
    const Event& begin = events_.at(from.value);
    const Event& end = events_.at(to.value);
    if (begin.recorded == 0 || end.recorded == 0) return std::nullopt;
    return end.time_ns - begin.time_ns;
  }
  Status copy(void* target, const void* source, Bytes bytes, StreamId stream) override {
    if (fails()) return failure();
    EXPECT_TRUE(is_pinned(target, bytes) || is_pinned(source, bytes))
        << "a copy crosses pinned ranges";
    Operation operation{Operation::Kind::kCopy};
    operation.target = static_cast<char*>(target);
    operation.source = static_cast<const char*>(source);
    operation.left = bytes;
    queue(stream, std::move(operation));
    return Nothing{};
  }
  Status synchronize(StreamId stream) override {
    ++host_waits_;
    run_until_empty(stream);
    return Nothing{};
  }
  Status pin(void* place, Bytes bytes) override {
    if (fails() || pinned_bytes() + bytes > options_.pinnable) {
      return Error{ErrorCode::kOutOfHostMemory, "the fake system refuses to pin"};
    }
    ++pins_;
    pinned_[static_cast<char*>(place)] = bytes;
    return Nothing{};
  }
  void unpin(void* place) override {
    EXPECT_EQ(pinned_.erase(static_cast<char*>(place)), 1U) << "unpinned what is not pinned";
  }
  std::optional<int> numa_node() const override { return std::nullopt; }

 private:
  struct Event {
    std::int64_t recorded = 0, reached = 0, time_ns = 0;
  };
  struct Operation {
    enum class Kind : std::uint8_t { kKernel, kCopy, kRecord, kWait } kind;
    std::function<void()> kernel = {};
    char* target = nullptr;
    const char* source = nullptr;
    Bytes left = {};
    std::uint64_t event = 0;
    std::int64_t turn = 0;
  };
  using Queue = std::deque<Operation>;

  bool fails() {
    ++calls_;
    return calls_until_failure_ > 0 && --calls_until_failure_ == 0;
  }
  static Error failure() { return {ErrorCode::kSystem, "the fake device fails as it was told to"}; }

  bool is_pinned(const void* address, Bytes bytes) const {
    const char* begin = static_cast<const char*>(address);
    auto above = pinned_.upper_bound(const_cast<char*>(begin));
    if (above == pinned_.begin()) return false;
    const auto& [place, size] = *std::prev(above);
    return begin + bytes.value <= place + size.value;
  }

  void queue(StreamId stream, Operation operation) {
    streams_[stream.value].push_back(std::move(operation));
    const auto steps = chance_() % static_cast<unsigned>(options_.most_steps_per_call + 1);
    for (unsigned i = 0; i < steps; ++i) step();
  }
  bool can_run(const Operation& operation) const {
    if (operation.kind != Operation::Kind::kWait) return true;
    const auto event = events_.find(operation.event);
    return event == events_.end() || event->second.reached >= operation.turn;
  }
  void run(Queue& stream) {
    Operation& operation = stream.front();
    switch (operation.kind) {
      case Operation::Kind::kKernel:
        operation.kernel();
        break;
      case Operation::Kind::kCopy:
        if (!run_part(operation)) return;
        break;
      case Operation::Kind::kRecord:
        if (const auto event = events_.find(operation.event); event != events_.end()) {
          event->second.reached = std::max(event->second.reached, operation.turn);
          event->second.time_ns = clock_ns_;
        }
        break;
      case Operation::Kind::kWait:
        break;
    }
    stream.pop_front();
  }
  // Moves a part of what is left; true when nothing is.
  bool run_part(Operation& copy) {
    const std::int64_t half = copy.left.value / 2 + 1;
    const Bytes part{chance_() % 2 == 0 ? copy.left.value : half};
    std::memcpy(copy.target, copy.source, static_cast<std::size_t>(part.value));
    copy.target += part.value;
    copy.source += part.value;
    copy.left -= part;
    return copy.left == Bytes{0};
  }
  void run_until_empty(StreamId stream) {
    held_.clear();
    while (!streams_[stream.value].empty()) {
      if (!step()) {
        ADD_FAILURE() << "the host waits for ever";
        return;
      }
    }
  }

  Options options_;
  std::minstd_rand chance_;
  std::map<std::uint64_t, Queue> streams_;
  std::set<std::uint64_t> held_;
  std::map<std::uint64_t, Event> events_;
  std::map<char*, Bytes> pinned_;
  std::uint64_t last_id_ = 0;
  std::int64_t clock_ns_ = 0;
  int calls_ = 0, calls_until_failure_ = 0, host_waits_ = 0, pins_ = 0;
  int live_events_ = 0, live_streams_ = 0, created_streams_ = 0;
};

}  // namespace ebbtide::fakes
