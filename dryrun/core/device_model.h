// A GPU that can be simulated: the facts of a device file (dryrun/devices/README.md). Immutable, no
// state.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

// Kinds of numbers that matrix products are made of. The order is that of `kNumberNames`.
enum class NumberKind { kFloat64, kFloat32, kTensorFloat32, kFloat16, kBFloat16, kFloat8 };
inline constexpr std::array<const char*, 6> kNumberNames{"float64", "float32",  "tfloat32",
                                                         "float16", "bfloat16", "float8"};

// What a device is able to do, in units of seconds: peaks, and the share of them that is reached.
struct DeviceSpeed {
  int multiprocessors = 0;
  double l2_bytes = 0;  // what of device memory is kept near; 0: not known, everything
  std::array<double, kNumberNames.size()> peak_flops{};  // dense, in one second
  double memory_bandwidth = 0;                           // bytes in one second
  double to_host = 0, to_device = 0;                     // bytes in one second, one direction busy
  int devices_per_link = 1;                              // that share one link to the host
  double peer_bandwidth = 0;                             // bytes in one second, each direction
  int devices_per_node = 1;                              // that reach each other as peers
  double network_bandwidth = 0;                          // of one device's share, each direction
  // Multiprocessors that a collective keeps to itself, among peers and over the network.
  double peer_channels = 0, network_channels = 0;
  // Shares of the peaks above, in (0, 1].
  double matrix = 1, attention_forward = 1, attention_backward = 1, memory = 1;
  double cudnn_attention_forward = 1, cudnn_attention_backward = 1;  // of cuDNN's attention
  // Of products on tensor cores whose rows begin at multiples of 4 (of 2) bytes, but not of 16.
  double matrix_rows_4 = 1, matrix_rows_2 = 1;
  double host_link = 1, host_link_both = 1, host_link_pageable = 1, peer_link = 1, network = 1;
  // Seconds: the host's for one operator, the shortest kernel, the start of a copy.
  double operator_seconds = 0, kernel_seconds = 0, copy_seconds = 0;
  double element_seconds = 0;  // of one element in a kernel that takes them one by one
  // Of a collective: its start, a step to a peer, a step to another node.
  double collective_seconds = 0, peer_hop_seconds = 0, network_hop_seconds = 0;
};

struct DeviceModel {
  std::string option;        // what a user writes: --device h200
  std::string name;          // what the driver answers
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  Bytes memory;  // what cudaMemGetInfo calls total on an idle device
  int l2_bytes = 0;
  int shared_bytes_per_block_optin = 0;
  int shared_bytes_per_multiprocessor = 0;
  int max_threads_per_multiprocessor = 0;
  int max_blocks_per_multiprocessor = 0;
  int clock_khz = 0;
  int memory_clock_khz = 0;
  int memory_bus_bits = 0;
  DeviceSpeed speed;
};

inline constexpr int kMostChannels = 64;  // of NCCL
inline constexpr int kMaxDevices = 16;  // of one process
inline constexpr int kSharedBytesPerBlock = 48 * 1024;
inline constexpr int kReservedSharedBytesPerBlock = 1024;
inline constexpr int kRegistersPerMultiprocessor = 65536;
inline constexpr int kWarpSize = 32;
inline constexpr int kMaxThreadsPerBlock = 1024;
inline constexpr int kMaxGridX = 2147483647;
inline constexpr int kMaxGridYZ = 65535;

// The folder of device files: EBBTIDE_DRYRUN_DEVICES, else `devices` beside this library.
EBBTIDE_DRYRUN_API std::string device_folder();
// The device of a name in the folder, or of a path that ends in ".json". Errors are one line that
// names the file, the key and what is wrong with it; for an unknown name, the known ones.
EBBTIDE_DRYRUN_API Result<DeviceModel> load_device_model(std::string_view option,
                                                         const std::string& folder);
// The 16 bytes of a device's UUID: "ebbtide-dryrun" and its index.
EBBTIDE_DRYRUN_API void write_uuid(int device, char (&uuid)[16]);

}  // namespace ebbtide::dryrun
