// A trace being read, block by block, so that a file of any length takes little memory.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "allocator/base/event.h"
#include "allocator/base/result.h"
#include "profiler/trace_format.h"

namespace ebbtide {

// How far a trace could be read.
enum class TraceEnd {
  kNotReached,
  kComplete,   // up to its totals
  kTruncated,  // the file ends early: the program was killed, or is still running
  kDamaged,    // its contents are wrong from here on; see TraceReader::damage()
};

// Owns the open file and one block of records. Not thread-safe. Everything before a cut or a
// damaged block is delivered; nothing after it is, as the order of events would be unknown.
class TraceReader {
 public:
  // Fails with kBadTrace (one line that names the file) if this is not a trace that we can read.
  static Result<TraceReader> open(const std::string& path);

  // The records of the next block, valid until the next call; empty at the end, see end().
  std::span<const EventRecord> next();

  TraceEnd end() const { return end_; }
  // What is wrong, in words; empty unless end() is kTruncated or kDamaged.
  const std::string& damage() const { return damage_; }
  // Events that the program had to drop, as far as the file has been read.
  std::uint64_t lost() const { return lost_; }
  std::uint64_t records() const { return records_; }

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, Closer>;

  explicit TraceReader(File file);
  static Status check_header(std::FILE* file, const std::string& path);
  bool read_frame(Frame& frame);
  bool read_records(const Frame& frame);
  void finish(const Frame& frame);
  void stop(TraceEnd end, std::string damage);
  void stop_short(const char* where);

  File file_;
  std::vector<EventRecord> block_;
  TraceEnd end_ = TraceEnd::kNotReached;
  std::string damage_;
  std::uint64_t lost_ = 0;
  std::uint64_t records_ = 0;
};

}  // namespace ebbtide
