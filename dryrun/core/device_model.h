// The GPUs that can be simulated, as one table of facts. Immutable, no state.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "allocator/base/units.h"
#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

struct DeviceModel {
  const char* option;  // what a user writes: --device h200
  const char* name;    // what the driver answers
  int major, minor;    // compute capability
  int multiprocessors;
  Bytes memory;  // what cudaMemGetInfo calls total on an idle device
  int l2_bytes;
  int shared_bytes_per_block_optin;
  int shared_bytes_per_multiprocessor;
  int max_threads_per_multiprocessor;
  int max_blocks_per_multiprocessor;
  int clock_khz;
  int memory_clock_khz;
  int memory_bus_bits;
};

inline constexpr int kSharedBytesPerBlock = 48 * 1024;
inline constexpr int kReservedSharedBytesPerBlock = 1024;
inline constexpr int kRegistersPerMultiprocessor = 65536;
inline constexpr int kWarpSize = 32;
inline constexpr int kMaxThreadsPerBlock = 1024;
inline constexpr int kMaxGridX = 2147483647;
inline constexpr int kMaxGridYZ = 65535;

EBBTIDE_DRYRUN_API std::span<const DeviceModel> device_models();
// nullptr when there is none of that name.
EBBTIDE_DRYRUN_API const DeviceModel* find_device_model(std::string_view option);
// The 16 bytes of a device's UUID: "ebbtide-dryrun" and its index.
EBBTIDE_DRYRUN_API void write_uuid(int device, char (&uuid)[16]);
// "h200, h100-80g, ...": for messages.
EBBTIDE_DRYRUN_API std::string device_model_options();

}  // namespace ebbtide::dryrun
