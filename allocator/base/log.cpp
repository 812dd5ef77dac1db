#include "allocator/base/log.h"

#include <unistd.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace ebbtide {
namespace {

std::atomic<LogLevel> current_level{LogLevel::kWarning};

const char* name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kWarning: return "warning";
    case LogLevel::kInfo: return "info";
    case LogLevel::kDebug: return "debug";
  }
  return "?";
}

}  // namespace

void set_log_level(LogLevel level) { current_level.store(level, std::memory_order_relaxed); }
LogLevel log_level() { return current_level.load(std::memory_order_relaxed); }

void detail::write_line(LogLevel level, std::atomic<int>& site_count, const char* format, ...) {
  const int seen = site_count.fetch_add(1, std::memory_order_relaxed);
  if (seen >= kMaxPerSite && level != LogLevel::kDebug) return;
  std::array<char, 1024> line{};
  int length = std::snprintf(line.data(), line.size(), "ebbtide %s ", name_of(level));
  va_list arguments;
  va_start(arguments, format);
  const auto used = static_cast<std::size_t>(length);
  std::vsnprintf(line.data() + used, line.size() - used - 1, format, arguments);
  va_end(arguments);
  const std::size_t end = std::strlen(line.data());
  line[end] = '\n';
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), end + 1);
}

}  // namespace ebbtide
