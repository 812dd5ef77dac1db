// Driver calls that fail because a test says so.
#pragma once

#include <cstdint>

#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

// Kinds of calls that can be made to fail; a set of them is a sum.
enum class FallibleCall : unsigned {
  kAllocation = 1,        // of device memory: "out of memory"
  kEvent = 2,             // creating one, recording it, having a stream wait for it: "unknown error"
  kCopy = 4,              // asynchronous copies: "unknown error"
  kHostRegistration = 8,  // pinning host memory: "out of memory"
};

// Counts the call, and says whether it is the one that fails. Thread-safe.
EBBTIDE_DRYRUN_API bool is_made_to_fail(FallibleCall call);

// The `nth` call of these kinds from now on fails, once; 0: none does. Counting begins anew.
void make_fail(std::int64_t nth, unsigned kinds);
// Calls of those kinds since then.
std::int64_t fallible_calls();

}  // namespace ebbtide::dryrun
