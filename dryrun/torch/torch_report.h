// torch's own figures for the report at exit.
#pragma once

#include <cstdint>
#include <string>

namespace ebbtide::dryrun {

// A JSON array with one object per device that was used, or "null".
std::string torch_report();

// Bytes of live tensors on a device, by its caching allocator; 0 where it does not say.
std::int64_t torch_live_bytes(int device);

}  // namespace ebbtide::dryrun
