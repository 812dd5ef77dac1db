// How much host memory there is, and how much of it a program gets that does not say.
#pragma once

#include <cstdint>
#include <istream>
#include <optional>

namespace ebbtide::offload {

// Bytes of memory that this process may use: the machine's, or its control group's limit. Beside a
// simulated device as much as is asked for: what is swapped takes no bytes.
std::int64_t host_memory();
// Bytes that the system, in its /proc/meminfo, says are to be had: what caches of files hold is
// given back when it is asked for. None: it does not say.
std::optional<std::int64_t> available_memory(std::istream& meminfo);
// Host memory for a program that names no budget: three quarters of what is available, or, where
// the system does not say that, of what is free.
std::int64_t default_host_budget();

}  // namespace ebbtide::offload
