// CUPTI's functions, looked up at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "allocator/base/result.h"
#include "profiler/cupti/activity_layout.h"

namespace ebbtide {

// The library is never unloaded: it may call back as long as the process lives.
class CuptiLibrary {
 public:
  using Request = void (*)(std::uint8_t** buffer, std::size_t* size, std::size_t* most_records);
  using Complete = void (*)(void* context, std::uint32_t stream, std::uint8_t* buffer, std::size_t size,
                            std::size_t valid_size);
  using Callback = void (*)(void* user, int domain, std::uint32_t id, const void* data);
  using Clock = std::uint64_t (*)();

  // `path`: of a library; empty: the one that the process has loaded already (torch has), or else the one that the
  // system's loader finds. kUnsupported, in words, where there is none.
  static Result<CuptiLibrary> load(const std::string& path);

  // Named by CUPTI's functions without their prefix. Each returns a CuptiResult or another of CUPTI's numbers.
  int (*get_version)(std::uint32_t*) = nullptr;
  int (*get_result_string)(int, const char**) = nullptr;
  int (*subscribe)(void**, Callback, void*) = nullptr;
  int (*unsubscribe)(void*) = nullptr;
  int (*register_callbacks)(Request, Complete) = nullptr;
  int (*enable)(std::uint32_t kind) = nullptr;
  int (*disable)(std::uint32_t kind) = nullptr;
  int (*next_record)(std::uint8_t* buffer, std::size_t valid_size, void** record) = nullptr;
  int (*dropped_records)(void* context, std::uint32_t stream, std::size_t* dropped) = nullptr;
  int (*flush_all)(std::uint32_t flags) = nullptr;
  int (*get_timestamp)(std::uint64_t*) = nullptr;
  // Null in versions that lack them.
  int (*flush_period)(std::uint32_t milliseconds) = nullptr;
  int (*register_clock)(Clock) = nullptr;
  int (*enable_allocation_source)(std::uint8_t enable) = nullptr;

  // What a result other than kSuccess means to the user, in one line.
  Error error(int result) const;

 private:
  bool look_up(void* library);
};

}  // namespace ebbtide
