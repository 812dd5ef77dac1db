// Names in a trace: texts that records refer to by number.
#pragma once

#include <cstdint>
#include <mutex>
#include <string_view>

#include "allocator/base/event.h"

namespace ebbtide {

// Gives numbers from 1 on, and writes each text as kName records. Thread-safe: the records of one name follow each
// other in their order, though not without others between.
class OwnerNames {
 public:
  static constexpr std::size_t kMostText = 240;  // bytes; the rest is cut off

  std::uint32_t add(EventSink& sink, std::string_view text);

 private:
  std::mutex lock_;
  std::uint32_t count_ = 0;  // guarded by lock_
};

}  // namespace ebbtide
