#include "profiler/cupti/activity_buffers.h"

#include <new>

namespace ebbtide {

ActivityBuffers::~ActivityBuffers() {
  for (Buffer& buffer : buffers_) {
    if (buffer.is_out) static_cast<void>(buffer.memory.release());
  }
}

std::uint8_t* ActivityBuffers::take() noexcept {
  const std::lock_guard guard(lock_);
  for (Buffer& buffer : buffers_) {
    if (buffer.is_out) continue;
    if (buffer.memory == nullptr) {
      buffer.memory.reset(new (std::nothrow) std::uint64_t[kBytes / sizeof(std::uint64_t)]);
    }
    if (buffer.memory == nullptr) return nullptr;
    buffer.is_out = true;
    return reinterpret_cast<std::uint8_t*>(buffer.memory.get());
  }
  return nullptr;
}

bool ActivityBuffers::give_back(const std::uint8_t* given) noexcept {
  const std::lock_guard guard(lock_);
  for (Buffer& buffer : buffers_) {
    if (!buffer.is_out || reinterpret_cast<std::uint8_t*>(buffer.memory.get()) != given) continue;
    buffer.is_out = false;
    return true;
  }
  return false;
}

}  // namespace ebbtide
