// One contiguous address range that an arena lives in. It grows and shrinks at its upper end, and may have holes.
#pragma once

#include <vector>

#include "allocator/base/result.h"
#include "allocator/base/units.h"

namespace ebbtide {

// Implementations take memory from a device (through the upstream allocator, or from the operating
// system). Calls are serialised by the owner; none is made while an engine's lock is held.
//
// Invariants: (1) base() never changes while extent() > 0; (2) [base, base + extent) is usable memory, but for
// holes(); (3) these are sorted, disjoint and below the extent; (4) what a failed call changes is more memory, and fewer holes.
class ArenaRange {
 public:
  virtual ~ArenaRange() = default;

  // First address; null while the extent is zero and no place is known yet.
  virtual void* base() const = 0;
  virtual Bytes extent() const = 0;

  // False: it can only grow while it is empty, so it must be made as large as needed at once.
  virtual bool grows_in_place() const = 0;

  // The largest extent that the device could give at this moment, if upstream gave back what it does
  // not use. May ask the driver; may be called with the owner's lock.
  virtual Bytes limit() const = 0;

  // Makes the extent at least `wanted`. kOutOfDeviceMemory when the device cannot give it;
  // kUnsupported when this range cannot grow any more without moving.
  virtual Status extend_to(Bytes wanted) = 0;

  // Gives back memory above `kept`, as far as it can be given back; never below `kept`.
  virtual void shrink_to(Bytes kept) = 0;

  // Where memory inside the extent was given back, and none is until it is filled.
  virtual const std::vector<Span>& holes() const {
    static const std::vector<Span> kNone;
    return kNone;
  }

  // Gives back memory inside `idle`, whose first spans come first, until that is `wanted`; less, or nothing, where it cannot be
  // given back.
  virtual void release_inside(const std::vector<Span>& idle, Bytes wanted) {
    static_cast<void>(idle);
    static_cast<void>(wanted);
  }

  // Makes all of a span below the extent usable memory, and perhaps other holes on the way. Errors as of extend_to.
  virtual Status fill(Span span) {
    static_cast<void>(span);
    return Nothing{};
  }

  // Everything held from the device at this moment, this range and the upstream allocator's segments.
  virtual Bytes reserved() const = 0;

  // The highest that reserved() has been, as far as the implementation knows.
  virtual Bytes peak_reserved() const = 0;

  // Times that extend_to had cached upstream memory given back first.
  virtual std::int64_t upstream_trims() const = 0;
};

}  // namespace ebbtide
