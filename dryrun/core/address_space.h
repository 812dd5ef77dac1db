// One reservation of host addresses, handed out in ranges. The memory behind it costs nothing until
// it is written, and is given back to the host when a range is cleared.
//
// Owns the reservation. Not thread-safe: its owner locks. Invariant: ranges never overlap.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "allocator/base/units.h"

namespace ebbtide::dryrun {

class AddressSpace {
 public:
  // Reserves `wanted` bytes, or as many halvings of that as the host has left, but not fewer than `least`; is_valid() is
  // false when it refuses those.
  AddressSpace(Bytes wanted, Bytes least);
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  bool is_valid() const { return base_ != 0; }
  bool contains(std::uintptr_t address) const { return address - base_ < size_; }

  // The lowest free range of that size. Requires: alignment is a power of two.
  std::optional<std::uintptr_t> acquire(Bytes size, Bytes alignment);
  // Returns the range's size, or nothing when no range begins at `address`.
  std::optional<Bytes> release(std::uintptr_t address);
  // The range that holds `address`, as (begin, size).
  std::optional<std::pair<std::uintptr_t, Bytes>> find(std::uintptr_t address) const;

 private:
  std::uintptr_t base_ = 0;
  std::size_t size_ = 0;
  std::map<std::uintptr_t, std::size_t> ranges_;
};

// Gives the host pages behind a range back: it reads as zeros from now on.
void clear_host_pages(std::uintptr_t address, std::size_t size);

}  // namespace ebbtide::dryrun
