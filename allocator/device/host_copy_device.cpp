#include "allocator/device/host_copy_device.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

namespace ebbtide {
namespace {

// Ids of our streams begin above every handle that a caller may use for its compute stream.
constexpr std::uint64_t kFirstStream = std::uint64_t{1} << 63;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Error no_such_event() { return {ErrorCode::kInvalidArgument, "host copies: no such event"}; }

}  // namespace

HostCopyDevice::~HostCopyDevice() {
  std::vector<StreamId> streams;
  {
    const std::lock_guard lock(lock_);
    for (const auto& [id, stream] : streams_) streams.push_back({id});
  }
  for (const StreamId stream : streams) destroy_stream(stream);
}

Result<StreamId> HostCopyDevice::create_stream() {
  const std::lock_guard lock(lock_);
  const std::uint64_t id = kFirstStream + ++last_id_;
  Stream& stream = *(streams_[id] = std::make_unique<Stream>());
  stream.thread = std::thread([this, &stream] { run(stream); });
  return StreamId{id};
}

void HostCopyDevice::destroy_stream(StreamId id) {
  std::unique_ptr<Stream> stream;
  {
    const std::lock_guard lock(lock_);
    const auto found = streams_.find(id.value);
    if (found == streams_.end()) return;
    queue(*found->second, {.kind = Operation::Kind::kStop});
    stream = std::move(found->second);
    streams_.erase(found);
  }
  stream->thread.join();
}

void HostCopyDevice::run(Stream& stream) {
  std::unique_lock lock(lock_);
  while (true) {
    changed_.wait(lock, [&] { return !stream.queue.empty(); });
    const Operation operation = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (operation.kind == Operation::Kind::kStop) return;
    carry_out(operation, lock);
    ++stream.carried;
    changed_.notify_all();
  }
}

void HostCopyDevice::carry_out(const Operation& operation, std::unique_lock<std::mutex>& lock) {
  switch (operation.kind) {
    case Operation::Kind::kCopy:
      lock.unlock();
      std::memcpy(operation.target, operation.source,
                  static_cast<std::size_t>(operation.bytes.value));
      lock.lock();
      return;
    case Operation::Kind::kRecord:
      operation.event->reached = std::max(operation.event->reached, operation.turn);
      operation.event->time_ns = now_ns();
      return;
    case Operation::Kind::kWait:
      changed_.wait(lock, [&] { return operation.event->reached >= operation.turn; });
      return;
    case Operation::Kind::kStop:
      return;
  }
}

void HostCopyDevice::queue(Stream& stream, Operation operation) {
  stream.queue.push_back(std::move(operation));
  ++stream.queued;
  changed_.notify_all();
}

HostCopyDevice::Stream* HostCopyDevice::find(StreamId stream) {
  const auto found = streams_.find(stream.value);
  return found == streams_.end() ? nullptr : found->second.get();
}

std::shared_ptr<HostCopyDevice::Event> HostCopyDevice::find(EventId event) {
  const auto found = events_.find(event.value);
  return found == events_.end() ? nullptr : found->second;
}

Result<EventId> HostCopyDevice::create_event() {
  const std::lock_guard lock(lock_);
  const std::uint64_t id = ++last_id_;
  events_[id] = std::make_shared<Event>();
  return EventId{id};
}

void HostCopyDevice::destroy_event(EventId event) {
  const std::lock_guard lock(lock_);
  events_.erase(event.value);
}

Status HostCopyDevice::record(EventId id, StreamId stream_id) {
  const std::lock_guard lock(lock_);
  const std::shared_ptr<Event> event = find(id);
  if (event == nullptr) return no_such_event();
  const std::int64_t turn = ++event->recorded;
  if (Stream* stream = find(stream_id)) {
    queue(*stream, {.kind = Operation::Kind::kRecord, .event = event, .turn = turn});
    return Nothing{};
  }
  event->reached = turn;
  event->time_ns = now_ns();
  changed_.notify_all();
  return Nothing{};
}

Status HostCopyDevice::wait(StreamId stream_id, EventId id) {
  std::unique_lock lock(lock_);
  const std::shared_ptr<Event> event = find(id);
  if (event == nullptr) return no_such_event();
  const std::int64_t turn = event->recorded;
  if (Stream* stream = find(stream_id)) {
    queue(*stream, {.kind = Operation::Kind::kWait, .event = event, .turn = turn});
    return Nothing{};
  }
  changed_.wait(lock, [&] { return event->reached >= turn; });
  return Nothing{};
}

bool HostCopyDevice::is_done(EventId id) {
  const std::lock_guard lock(lock_);
  const std::shared_ptr<Event> event = find(id);
  return event == nullptr || event->reached >= event->recorded;
}

std::optional<std::int64_t> HostCopyDevice::elapsed_ns(EventId from_id, EventId to_id) {
  const std::lock_guard lock(lock_);
  const std::shared_ptr<Event> from = find(from_id);
  const std::shared_ptr<Event> to = find(to_id);
  for (const auto& event : {from, to}) {
    if (event == nullptr || event->recorded == 0 || event->reached < event->recorded) {
      return std::nullopt;
    }
  }
  return to->time_ns - from->time_ns;
}

Status HostCopyDevice::copy(void* target, const void* source, Bytes bytes, StreamId stream_id) {
  const std::lock_guard lock(lock_);
  Stream* stream = find(stream_id);
  if (stream == nullptr) return Error{ErrorCode::kInvalidArgument, "host copies: no such stream"};
  queue(*stream,
        {.kind = Operation::Kind::kCopy, .target = target, .source = source, .bytes = bytes});
  return Nothing{};
}

Status HostCopyDevice::synchronize(StreamId stream_id) {
  std::unique_lock lock(lock_);
  Stream* stream = find(stream_id);
  if (stream == nullptr) return Nothing{};
  const std::int64_t target = stream->queued;
  changed_.wait(lock, [&] { return stream->carried >= target; });
  return Nothing{};
}

}  // namespace ebbtide
