#include "hooks/c_status.h"

#include "allocator/base/event.h"

namespace ebbtide {
namespace {

ebbtide_status code_of(ErrorCode code) {
  return static_cast<ebbtide_status>(static_cast<int>(code) + 1);
}
static_assert(static_cast<int>(ErrorCode::kInvalidArgument) + 1 == EBBTIDE_INVALID_ARGUMENT);
static_assert(static_cast<int>(ErrorCode::kBadTrace) + 1 == EBBTIDE_BAD_TRACE);
static_assert(static_cast<int>(ErrorCode::kSystem) + 1 == EBBTIDE_SYSTEM);

}  // namespace

std::string& last_error() {
  thread_local std::string message;
  return message;
}

ebbtide_status fail(const Error& error) {
  last_error() = error.message;
  return code_of(error.code);
}

ebbtide_status status_of(const Status& status) {
  return status.ok() ? EBBTIDE_OK : fail(status.error());
}

void copy_text(const std::string& text, char* out, std::size_t capacity) {
  const std::size_t length = std::min(text.size(), capacity - 1);
  std::memcpy(out, text.data(), length);
  out[length] = '\0';
}

}  // namespace ebbtide
