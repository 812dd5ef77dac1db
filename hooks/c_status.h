// What every function of the C interface does with errors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <string>

#include "allocator/base/result.h"
#include "hooks/ebbtide.h"

namespace ebbtide {

// The calling thread's last error in words; ebbtide_last_error() returns it.
std::string& last_error();

// Notes the message and returns the code as the C interface has it.
ebbtide_status fail(const Error& error);
ebbtide_status status_of(const Status& status);

// No exception leaves the C interface: what is not expected becomes EBBTIDE_SYSTEM.
template <typename Body>
ebbtide_status guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    last_error() = error.what();
  } catch (...) {
    last_error() = "unknown exception";
  }
  return EBBTIDE_SYSTEM;
}

// As much of the text as there is room for, and a zero. Requires: capacity > 0.
void copy_text(const std::string& text, char* out, std::size_t capacity);

// Copies as much of the struct as the caller knows; its size stays as the caller gave it.
template <typename Struct>
void copy_known(const Struct& filled, Struct* out) {
  const std::size_t known = std::min(out->struct_size, sizeof(Struct));
  const std::size_t given = out->struct_size;
  std::memcpy(out, &filled, known);
  out->struct_size = given;
}

}  // namespace ebbtide
