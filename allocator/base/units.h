// Strong types for the quantities that cross module borders: sizes, places and order never mix.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "allocator/base/export.h"

namespace ebbtide {

// A size in bytes. Signed, so that differences are well defined; negative only as a difference.
struct Bytes {
  std::int64_t value = 0;

  constexpr auto operator<=>(const Bytes&) const = default;
  constexpr Bytes& operator+=(Bytes other) { value += other.value; return *this; }
  constexpr Bytes& operator-=(Bytes other) { value -= other.value; return *this; }
};

// A place inside an arena: bytes from its base.
struct Offset {
  std::int64_t value = 0;

  constexpr auto operator<=>(const Offset&) const = default;
};

// The bytes of an arena from `begin` to before `end`.
struct Span {
  Offset begin, end;

  constexpr bool operator==(const Span&) const = default;
};

// An index in an order of events; never a time in nanoseconds.
struct Tick {
  std::int64_t value = 0;

  constexpr auto operator<=>(const Tick&) const = default;
};

constexpr Bytes operator+(Bytes a, Bytes b) { return {a.value + b.value}; }
constexpr Bytes operator-(Bytes a, Bytes b) { return {a.value - b.value}; }
constexpr Offset operator+(Offset a, Bytes b) { return {a.value + b.value}; }
constexpr Offset operator-(Offset a, Bytes b) { return {a.value - b.value}; }
constexpr Bytes operator-(Offset a, Offset b) { return {a.value - b.value}; }
constexpr Tick operator+(Tick a, std::int64_t n) { return {a.value + n}; }
constexpr std::int64_t operator-(Tick a, Tick b) { return a.value - b.value; }

inline constexpr Bytes kKiB{std::int64_t{1} << 10};
inline constexpr Bytes kMiB{std::int64_t{1} << 20};
inline constexpr Bytes kGiB{std::int64_t{1} << 30};

// Requires: alignment > 0. Returns the smallest multiple of alignment that is >= value.
constexpr std::int64_t align_up(std::int64_t value, std::int64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}
constexpr Bytes align_up(Bytes size, Bytes alignment) {
  return {align_up(size.value, alignment.value)};
}
constexpr Offset align_up(Offset offset, Bytes alignment) {
  return {align_up(offset.value, alignment.value)};
}

// "27.18 GiB", "1.50 MiB", "512 B": two decimals, binary units.
EBBTIDE_EXPORT std::string to_string(Bytes size);

}  // namespace ebbtide
