// What a swap has moved and holds.
#pragma once

#include <cstdint>

#include "allocator/base/units.h"
#include "swap/copy_clock.h"

namespace ebbtide {

struct SwapStats {
  Bytes swapped_out, swapped_in;  // copied since the start
  std::int64_t copies_out = 0, copies_in = 0;
  Bytes live, peak_live;  // host bytes of tickets, each rounded up to Places::kAlignment
  Bytes slab, slab_limit,
      budget;  // pinned now, a spare included; what tickets may take; what was allowed at the start
  std::int64_t growths = 0;   // times that memory was pinned
  std::int64_t refusals = 0;  // swap-outs that found no host memory
  std::int64_t rounds = 0;    // times that the last live ticket was released
  std::int64_t planned_tickets = 0, unplanned_tickets = 0;
  Bytes plan_height, plan_lower_bound;  // of the plan in force; zero if there is none
  std::int64_t host_waits = 0;  // waits of ours on the host: after errors and at the end only
  CopyTime out, in;
};

}  // namespace ebbtide
