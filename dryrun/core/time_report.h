// What virtual time adds to the report, and the streams' timeline as a file.
#pragma once

#include <string>

#include "dryrun/core/memory_curve.h"
#include "dryrun/core/timeline.h"

namespace ebbtide::dryrun {

// A JSON object: step time, tokens, use of the peak, and where the time of a steady step goes. The
// first step counts only if it is the only one: it makes the optimizer's state.
std::string time_report(Timeline& timeline);

// A JSON object: `spans` of the last steps, and `memory`, samples of bytes over the same time.
std::string timeline_report(Timeline& timeline, MemoryCurve& memory);

}  // namespace ebbtide::dryrun
