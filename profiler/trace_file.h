// A trace being written: the encoder of Note [Trace format] in profiler/trace_format.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "allocator/base/event.h"
#include "allocator/base/result.h"

namespace ebbtide {

// Owns a file descriptor and, through it, the right to write the file: a second process that was
// given the same path is refused instead of mixing its events into ours. Not thread-safe.
// Each append is one block and one write(2): nothing is buffered here, so what was appended
// survives a crash of the process. After a failed write the file takes nothing more.
class TraceFile {
 public:
  // Creates or replaces the file and writes the header.
  static Result<TraceFile> create(const std::string& path);

  TraceFile(TraceFile&& other) noexcept;
  TraceFile& operator=(TraceFile&&) = delete;
  // Closes the descriptor; without finish() the file reads as truncated.
  ~TraceFile();

  // Requires: records.size() <= kMaxBlockRecords. `lost` counts events dropped so far.
  Status append(std::span<const EventRecord> records, std::uint64_t lost);
  // Writes the totals. Nothing may be appended after it.
  Status finish(std::uint64_t lost);

  std::uint64_t records() const { return records_; }
  const std::string& path() const { return path_; }

 private:
  TraceFile(int descriptor, std::string path);
  void unlock();
  Status write_all(const void* header, std::size_t header_size, std::span<const EventRecord> body);

  int descriptor_;  // -1: moved from
  std::string path_;
  std::uint64_t records_ = 0;
  bool failed_ = false;
};

}  // namespace ebbtide
