// Every environment variable of Ebbtide, read once. No getenv anywhere else.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "allocator/base/log.h"
#include "allocator/base/result.h"
#include "allocator/base/units.h"

namespace ebbtide {

enum class Mode : int { kOff = 0, kObserve = 1, kServe = 2 };

struct ReportTarget {
  enum class Kind { kStderr, kOff, kText, kJson } kind = Kind::kStderr;
  std::string path;  // for kText and kJson
};

// Where the report of an out-of-memory error goes.
struct OutOfMemoryTarget {
  bool is_off = false;
  std::string path = "ebbtide-oom-%p.txt";  // %p is the process's number
};

// What becomes of activations; the package ebbtide acts on it.
struct OffloadTarget {
  enum class Kind { kOff, kAuto, kMemo, kShare } kind = Kind::kOff;
  double share = 0;  // for kShare: MEMO's alpha, 0 to 1
};

// Whether CUPTI is asked for kernel and copy times.
struct CuptiTarget {
  bool is_on = false;
  std::string library;  // empty: the one that torch brings
};

// Which stacks of allocations go into a trace.
enum class TraceStacks { kOff, kPython, kCpp, kAll };

struct Settings {
  Mode mode = Mode::kOff;          // EBBTIDE: unset, 0, 1, observe
  std::string trace_path;          // EBBTIDE_TRACE; empty: no trace
  TraceStacks trace_stacks = TraceStacks::kOff;  // EBBTIDE_TRACE_STACKS: off, python, cpp, all
  CuptiTarget cupti;               // EBBTIDE_CUPTI: 0, 1, the path of a library
  std::string plan_path;           // EBBTIDE_PLAN; empty: plans are neither loaded nor saved
  ReportTarget report;             // EBBTIDE_REPORT: stderr, off, a path ending in .txt or .json
  OutOfMemoryTarget out_of_memory; // EBBTIDE_OOM: auto, off, a path ending in .txt
  bool strict = false;             // EBBTIDE_STRICT: 0, 1
  LogLevel log_level = LogLevel::kWarning;  // EBBTIDE_LOG: warning, info, debug
  OffloadTarget offload;           // EBBTIDE_OFFLOAD: off, auto, memo, 0.0 to 1.0
  std::optional<Bytes> device_budget;  // EBBTIDE_HBM: a size; absent: no limit but the device's
  std::optional<Bytes> host_budget;    // EBBTIDE_HOST: a size; absent: no limit but the machine's

  // kInvalidArgument names the variable, its value and what is allowed. `get` is getenv, or a test's.
  static Result<Settings> read(const std::function<const char*(const char*)>& get);
};

}  // namespace ebbtide
