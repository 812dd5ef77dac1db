// One logger: printf-style into a stack buffer, then write(2). No heap, no iostream, safe in hooks.
//
// A line is `ebbtide <level> <text>`. Each call site prints at most kMaxPerSite lines (debug
// lines are not bounded), then falls silent, so that a fault in a hot path cannot flood a terminal. Thread-safe; never blocks on a lock.
#pragma once

#include <atomic>

#include "allocator/base/export.h"

namespace ebbtide {

enum class LogLevel : int { kWarning = 0, kInfo = 1, kDebug = 2 };

// Set once from the settings (EBBTIDE_LOG); kWarning before that.
void set_log_level(LogLevel level);
EBBTIDE_EXPORT LogLevel log_level();

namespace detail {
inline constexpr int kMaxPerSite = 32;
EBBTIDE_EXPORT void write_line(LogLevel level, std::atomic<int>& site_count, const char* format, ...)
    __attribute__((format(printf, 3, 4)));
}  // namespace detail

}  // namespace ebbtide

// Macros because the per-site count and the level check must stand at the call site.
#define EBBTIDE_LOG_AT(level, ...)                                        \
  do {                                                                    \
    if ((level) <= ::ebbtide::log_level()) {                              \
      static std::atomic<int> ebbtide_site_count{0};                      \
      ::ebbtide::detail::write_line((level), ebbtide_site_count, __VA_ARGS__); \
    }                                                                     \
  } while (false)
#define EBBTIDE_WARN(...) EBBTIDE_LOG_AT(::ebbtide::LogLevel::kWarning, __VA_ARGS__)
#define EBBTIDE_INFO(...) EBBTIDE_LOG_AT(::ebbtide::LogLevel::kInfo, __VA_ARGS__)
#define EBBTIDE_DEBUG(...) EBBTIDE_LOG_AT(::ebbtide::LogLevel::kDebug, __VA_ARGS__)
