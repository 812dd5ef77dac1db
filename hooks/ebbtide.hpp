// The C interface for C++ programs: RAII and values. Header-only; see ebbtide.h for the contracts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include <ebbtide/ebbtide.h>

namespace ebbtide {

// Marks the beginning of an iteration.
inline void step() { ebbtide_step(); }
// The same, with the extents of its input (batch, length, ...): see ebbtide_mark_input.
inline void step(std::span<const std::int64_t> input) {
  ebbtide_mark_input(EBBTIDE_MARK_STEP, 0, input.data(), input.size());
}

// One iteration inside this scope is observed and, at its end, planned.
class Warmup {
 public:
  Warmup() { ebbtide_warmup_begin(); }
  ~Warmup() { ebbtide_warmup_end(); }
  Warmup(const Warmup&) = delete;
  Warmup& operator=(const Warmup&) = delete;
};

// The five-line report.
inline std::string report() {
  std::string text(ebbtide_report(nullptr, 0), '\0');
  if (!text.empty()) ebbtide_report(text.data(), text.size() + 1);
  return text;
}

// Figures of a device; -1 is host memory. Throws std::runtime_error when no adaptor serves it.
inline ebbtide_stats stats(int device) {
  ebbtide_stats stats{};
  stats.struct_size = sizeof(stats);
  if (ebbtide_get_stats(device, &stats) != EBBTIDE_OK) throw std::runtime_error(ebbtide_last_error());
  return stats;
}

}  // namespace ebbtide
