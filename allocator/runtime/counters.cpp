#include "allocator/runtime/counters.h"

namespace ebbtide {

const char* to_string(Divergence cause) {
  switch (cause) {
    case Divergence::kUnexpected: return "an allocation the plan does not expect";
    case Divergence::kOutgrown: return "an allocation larger than its planned place";
    case Divergence::kPlaceTaken: return "the planned place was still taken";
    case Divergence::kNoMemory: return "the arena could not grow to the planned place";
  }
  return "unknown";
}

}  // namespace ebbtide
