#include "allocator/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace ebbtide::detail {

void check_failed(const char* file, int line, const char* expression) {
  std::fprintf(stderr, "ebbtide bug: %s:%d: check failed: %s\n", file, line, expression);
  std::abort();
}

void check_failed(const char* file, int line, const char* expression, std::int64_t left,
                  std::int64_t right) {
  std::fprintf(stderr, "ebbtide bug: %s:%d: check failed: %s (%lld vs %lld)\n", file, line,
               expression, static_cast<long long>(left), static_cast<long long>(right));
  std::abort();
}

}  // namespace ebbtide::detail
