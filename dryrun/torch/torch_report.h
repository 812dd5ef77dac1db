// torch's own figures for the report at exit.
#pragma once

#include <string>

namespace ebbtide::dryrun {

// A JSON array with one object per device that was used, or "null".
std::string torch_report();

}  // namespace ebbtide::dryrun
