// Events and files that the profiler's tests share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "allocator/base/event.h"
#include "profiler/trace_file.h"
#include "profiler/trace_format.h"
#include "profiler/trace_reader.h"

namespace ebbtide::testing_support {

// A path of its own for each object; the file, if any, goes with it.
class TemporaryPath {
 public:
  TemporaryPath() {
    static int count = 0;
    path_ = testing::TempDir() + "ebbtide-" + std::to_string(getpid()) + "-" +
            std::to_string(count++) + ".ebb";
  }
  ~TemporaryPath() { std::remove(path_.c_str()); }
  TemporaryPath(const TemporaryPath&) = delete;
  TemporaryPath& operator=(const TemporaryPath&) = delete;

  const std::string& string() const { return path_; }

 private:
  std::string path_;
};

inline EventRecord allocation(std::uint64_t address, std::int64_t bytes,
                              Placement placement = Placement::kUpstream) {
  EventRecord event;
  event.address = address;
  event.bytes = bytes;
  event.placement = placement;
  return event;
}

inline EventRecord other(Action action, std::int64_t bytes = 0, std::uint64_t address = 0) {
  EventRecord event;
  event.action = action;
  event.bytes = bytes;
  event.address = address;
  return event;
}

// Any actions on two devices and few addresses, so that double frees and lost frees abound.
inline std::vector<EventRecord> random_events(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<EventRecord> events(count);
  for (std::size_t i = 0; i < count; ++i) {
    EventRecord& event = events[i];
    event.tick = i;
    event.time_ns = random() % 4 == 0 ? 0 : 1000 + i * 10;
    event.address = 4096 + random() % 32;
    event.bytes = static_cast<std::int64_t>(random() % 100'000);
    event.action = static_cast<Action>(random() % 3 == 0 ? 3 + random() % 9 : 1 + random() % 2);
    event.placement = static_cast<Placement>(random() % 4);
    event.detail = static_cast<std::uint8_t>(random() % 4);
    event.device = static_cast<std::int8_t>(static_cast<int>(random() % 2) - 1);
  }
  return events;
}

// A whole trace in blocks of `block_size` events.
inline void write_trace(const std::string& path, std::span<const EventRecord> events,
                        std::size_t block_size = 8, std::uint64_t lost = 0) {
  Result<TraceFile> file = TraceFile::create(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  while (!events.empty()) {
    const std::size_t count = std::min(block_size, events.size());
    ASSERT_TRUE(file.value().append(events.first(count), 0).ok());
    events = events.subspan(count);
  }
  ASSERT_TRUE(file.value().finish(lost).ok());
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::vector<EventRecord> read_all(TraceReader& reader) {
  std::vector<EventRecord> events;
  for (auto block = reader.next(); !block.empty(); block = reader.next()) {
    events.insert(events.end(), block.begin(), block.end());
  }
  return events;
}

}  // namespace ebbtide::testing_support
