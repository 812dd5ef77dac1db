// Addresses as numbers and back, in one place.
#pragma once

#include <cstdint>

namespace ebbtide::dryrun {

inline std::uintptr_t to_address(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}
inline void* to_pointer(std::uintptr_t address) { return reinterpret_cast<void*>(address); }

}  // namespace ebbtide::dryrun
