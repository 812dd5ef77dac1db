// Every environment variable of Ebbtide, read once. No getenv anywhere else.
#pragma once

#include <functional>
#include <string>

#include "allocator/base/log.h"
#include "allocator/base/result.h"

namespace ebbtide {

enum class Mode : int { kOff = 0, kObserve = 1, kServe = 2 };

struct ReportTarget {
  enum class Kind { kStderr, kOff, kText, kJson } kind = Kind::kStderr;
  std::string path;  // for kText and kJson
};

struct Settings {
  Mode mode = Mode::kOff;          // EBBTIDE: unset, 0, 1, observe
  std::string trace_path;          // EBBTIDE_TRACE; empty: no trace
  std::string plan_path;           // EBBTIDE_PLAN; empty: plans are neither loaded nor saved
  ReportTarget report;             // EBBTIDE_REPORT: stderr, off, a path ending in .txt or .json
  bool strict = false;             // EBBTIDE_STRICT: 0, 1
  LogLevel log_level = LogLevel::kWarning;  // EBBTIDE_LOG: warning, info, debug

  // kInvalidArgument names the variable, its value and what is allowed. `get` is getenv, or a test's.
  static Result<Settings> read(const std::function<const char*(const char*)>& get);
};

}  // namespace ebbtide
