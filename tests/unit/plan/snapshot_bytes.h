// Small memory snapshots as bytes: a pickler of just what they need.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ebbtide::snapshot {

inline std::string text(std::string_view value) {
  return std::string("\x8C") + static_cast<char>(value.size()) + std::string(value);
}
inline std::string integer(std::int64_t value) {
  std::string bytes("\x8A\x08");
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(static_cast<std::uint64_t>(value) >> 8 * i & 0xFF);
  }
  return bytes;
}
inline std::string list(std::string_view items) { return "](" + std::string(items) + "e"; }
inline std::string dictionary(std::string_view items) { return "}(" + std::string(items) + "u"; }
inline std::string pickle(std::string_view value) { return "\x80\x04" + std::string(value) + "."; }

inline std::string entry(std::string_view action, std::int64_t address, std::int64_t size,
                         std::int64_t stream = 0) {
  return dictionary(text("action") + text(action) + text("addr") + integer(address) + text("size") +
                    integer(size) + text("stream") + integer(stream) + text("frames") + list(""));
}
inline std::string block(std::int64_t address, std::int64_t size, std::string_view state) {
  return dictionary(text("address") + integer(address) + text("size") + integer(size) +
                    text("requested_size") + integer(size) + text("state") + text(state));
}
inline std::string segment(std::int64_t device, std::int64_t address, std::string_view blocks) {
  return dictionary(text("device") + integer(device) + text("address") + integer(address) +
                    text("blocks") + list(blocks));
}
inline std::string snapshot(std::string_view segments, std::string_view traces) {
  return pickle(
      dictionary(text("segments") + list(segments) + text("device_traces") + list(traces)));
}

// Two devices. Device 0: the buffer of 0x2000 is from before the trace and freed in it, that of
// 0x3000 from before and alive at its end, that of 0x5000 allocated and alive at its end. Device 1:
// nothing.
inline std::string sample() {
  return snapshot(
      segment(0, 0x1000,
              block(0x1000, 0x1000, "inactive") + block(0x2000, 0x1000, "inactive") +
                  block(0x3000, 1000, "active_allocated") + block(0x5000, 700, "active_allocated")),
      list(entry("alloc", 0x1000, 1) + entry("free_requested", 0x2000, 0x1000) +
           entry("free_completed", 0x2000, 0x1000) + entry("segment_alloc", 0x9000, 1 << 20) +
           entry("free_requested", 0x1000, 1) + entry("free_completed", 0x1000, 1) +
           entry("alloc", 0x5000, 700, 7)) +
          list(""));
}

}  // namespace ebbtide::snapshot
