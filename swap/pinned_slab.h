// The one range of pinned host memory that swapped bytes live in: one place, growing at its upper
// end.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "allocator/device/copy_device.h"

namespace ebbtide {

// Owns address space for the whole budget, and pages only up to extent(). Growing registers the new
// pages with the device, as one registration on top of the earlier ones; a copy must not cross from
// one registration into the next, so it is queued in parts.
//
// Note [Spare]
// Where pinned memory runs out, torch needs a little of it as well: `.item()` copies through it. So
// with the first pages a spare is pinned at the upper end of the address space. When the system
// refuses more, the spare is what is given back to it; when the budget is needed to its end, it
// goes.
//
// Serialised by its owner. Growing takes as long as pinning does; nothing else costs anything.
//
// Invariants: (1) 0 <= extent <= limit <= budget, and extent + spare <= budget, in whole pages; (2)
// registrations are sorted, the first at 0, none empty, the last ends at extent; (3) base never
// changes.
class PinnedSlab {
 public:
  // The largest budget: what still leaves address space for everything else.
  static constexpr Bytes kMaxBudget{std::int64_t{1} << 45};

  // `device` must outlive the slab. Requires: 0 <= budget <= kMaxBudget.
  PinnedSlab(CopyDevice& device, Bytes budget);
  // Requires: no copy from or to it is in flight.
  ~PinnedSlab();
  PinnedSlab(const PinnedSlab&) = delete;
  PinnedSlab& operator=(const PinnedSlab&) = delete;

  Bytes budget() const { return budget_; }
  Bytes extent() const { return extent_; }
  // What can be had as far as is known: the budget's whole pages, until the system refused to pin
  // more.
  Bytes limit() const { return limit_; }
  std::int64_t growths() const { return static_cast<std::int64_t>(starts_.size()); }
  char* at(Offset offset) const { return base_ + offset.value; }

  // What is held from the system: the extent and the spare.
  Bytes pinned() const { return extent_ + spare_; }

  // Makes the extent at least `wanted`: by a step if that can be had, else by just enough pages.
  // kOutOfHostMemory beyond the limit, or when pinning fails: then a part of it may have been had,
  // and the limit is known.
  Status extend_to(Bytes wanted);

  struct Part {
    Offset offset;
    Bytes bytes;
    bool operator==(const Part&) const = default;
  };
  // The first part of [offset, offset + bytes) that is of one registration. Requires: it lies below
  // the extent.
  Part first_part(Offset offset, Bytes bytes) const;

  bool is_valid() const;

 private:
  // After a refusal: half of it, or a quarter ..., and from then on no more is asked for.
  void take_what_is_granted(Bytes refused);
  void pin_spare();
  void drop_spare();
  // Requires: whole pages, more than there are.
  Status pin_up_to(Bytes extent);
  Status pin(Bytes from, Bytes growth);

  CopyDevice& device_;
  const Bytes budget_;
  char* base_ = nullptr;  // null: the address space could not be had, and the limit is zero
  const Bytes reserved_;  // the budget's whole pages
  Bytes limit_;
  Bytes extent_;
  Bytes spare_;                 // at the end of reserved_; zero if there is none
  std::vector<Offset> starts_;  // where each registration begins
};

}  // namespace ebbtide
