// Damage to encoded plans that the check sum does not show.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "allocator/base/crc32.h"
#include "allocator/runtime/round.h"

namespace ebbtide::plan_damage {

inline constexpr std::size_t kSumAt = 12;   // behind the magic and the version
inline constexpr std::size_t kBodyAt = 16;

inline void fix_sum(std::string& bytes) {
  const std::uint32_t sum = crc32(bytes.data() + kBodyAt, bytes.size() - kBodyAt);
  std::memcpy(bytes.data() + kSumAt, &sum, sizeof(sum));
}

// The numbers that damage likes: bounds, signs, and what a bit can do.
inline std::int64_t nasty(std::mt19937& random, std::int64_t old) {
  switch (random() % 10) {
    case 0: return 0;
    case 1: return -1;
    case 2: return 1;
    case 3: return std::int64_t{1} << random() % 63;
    case 4: return INT64_MAX;
    case 5: return INT64_MIN;
    case 6: return kAlive.value + static_cast<std::int64_t>(random() % 3) - 1;
    case 7: return static_cast<std::int64_t>(static_cast<std::uint64_t>(old) + random() % 7 - 3);
    case 8: return old ^ (std::int64_t{1} << random() % 64);
    default: return static_cast<std::int64_t>(random() % 16);
  }
}

}  // namespace ebbtide::plan_damage
