// Which bytes of the slab are taken: free gaps, the lowest one first.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "allocator/base/units.h"

namespace ebbtide {

// Pure book-keeping over [0, capacity). Every place begins at a multiple of kAlignment and takes
// whole multiples of it. Serialised by its owner; logarithmic but for first_fit and room, which
// look at the gaps in order (last in, first out leaves one).
//
// Invariants: (1) gaps and taken places cover [0, capacity) without overlap; (2) two gaps never
// touch; (3) taken bytes = sum of taken places.
class Places {
 public:
  static constexpr Bytes kAlignment{512};  // what copies like, and what torch aligns tensors to
  static constexpr Bytes occupied(Bytes bytes) { return align_up(bytes, kAlignment); }

  // Requires: capacity >= 0. What is left over beyond the last multiple of kAlignment is not used.
  explicit Places(Bytes capacity);

  // The lowest gap that holds `bytes`, or absent. Takes nothing.
  std::optional<Offset> first_fit(Bytes bytes) const;
  // The largest size up to `wanted` that first_fit would find below `limit`; a multiple of
  // kAlignment unless it is `wanted` itself.
  Bytes room(Bytes wanted, Bytes limit) const;
  bool is_free(Offset offset, Bytes bytes) const;

  // Requires: is_free(offset, bytes), bytes > 0, offset a multiple of kAlignment.
  void take(Offset offset, Bytes bytes);
  // Requires: taken with exactly these.
  void give_back(Offset offset, Bytes bytes);

  // Occupied bytes, now and at their highest.
  Bytes taken() const { return taken_; }
  Bytes peak_taken() const { return peak_taken_; }

  bool is_valid() const;

 private:
  const Bytes capacity_;
  std::map<Offset, Bytes> gaps_;
  Bytes taken_;
  Bytes peak_taken_;
};

}  // namespace ebbtide
