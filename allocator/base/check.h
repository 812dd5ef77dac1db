// EBBTIDE_CHECK: a broken invariant of ours is a bug; it prints both operands and aborts, always on.
// EBBTIDE_DCHECK: the same for costly conditions, in builds with EBBTIDE_DEBUG_CHECKS only.
#pragma once

#include <cstdint>

namespace ebbtide::detail {
[[noreturn]] void check_failed(const char* file, int line, const char* expression);
[[noreturn]] void check_failed(const char* file, int line, const char* expression,
                               std::int64_t left, std::int64_t right);
}  // namespace ebbtide::detail

// Macros because file, line and the expression's text must come from the call site.
#define EBBTIDE_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::ebbtide::detail::check_failed(__FILE__, __LINE__, #condition))
#define EBBTIDE_CHECK_OP(left, op, right)                                                       \
  (((left)op(right)) ? static_cast<void>(0)                                                     \
                     : ::ebbtide::detail::check_failed(__FILE__, __LINE__, #left " " #op " " #right, \
                                                       static_cast<std::int64_t>(left),         \
                                                       static_cast<std::int64_t>(right)))
#ifdef EBBTIDE_DEBUG_CHECKS
#define EBBTIDE_DCHECK(condition) EBBTIDE_CHECK(condition)
#else
#define EBBTIDE_DCHECK(condition) static_cast<void>(0)
#endif
