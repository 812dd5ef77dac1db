#include "dryrun/core/device_attribute.h"

#include <algorithm>
#include <iterator>

namespace ebbtide::dryrun {

namespace {

// The attributes that follow from the model. The numbers are CUDA's.
std::optional<int> model_attribute(const DeviceModel& model, int attribute) {
  switch (attribute) {
    case 13:
      return model.clock_khz;
    case 16:
      return model.multiprocessors;
    case 36:
      return model.memory_clock_khz;
    case 37:
      return model.memory_bus_bits;
    case 38:
      return model.l2_bytes;
    case 39:
      return model.max_threads_per_multiprocessor;
    case 75:
      return model.major;
    case 76:
      return model.minor;
    case 81:
      return model.shared_bytes_per_multiprocessor;
    case 97:
      return model.shared_bytes_per_block_optin;
    case 106:
      return model.max_blocks_per_multiprocessor;
    case 108:
      return model.l2_bytes / 8 * 5;
    case 120:
      return model.major >= 9 ? 1 : 0;  // cluster launch
    default:
      return {};
  }
}

struct Answer {
  int attribute;
  int value;
};

// The attributes that are the same for all models.
constexpr Answer kCommonAnswers[] = {
    {1, kMaxThreadsPerBlock},
    {2, kMaxThreadsPerBlock},
    {3, kMaxThreadsPerBlock},
    {4, 64},         // block size in z
    {5, kMaxGridX},  // zero here makes CUB's scans loop for ever
    {6, kMaxGridYZ},
    {7, kMaxGridYZ},
    {8, kSharedBytesPerBlock},
    {9, 65536},  // constant memory
    {10, kWarpSize},
    {11, 2147483647},  // pitch
    {12, kRegistersPerMultiprocessor},
    {14, 512},  // texture alignment
    {30, 512},  // surface alignment
    {40, 3},    // copy engines
    {51, 32},   // texture pitch alignment
    {82, kRegistersPerMultiprocessor},
    {87, 2},           // double precision at half the rate
    {109, 128 << 20},  // access policy window
    {111, kReservedSharedBytesPerBlock},
    {126, 4},   // memory synchronisation domains
    {131, -1},  // no NUMA node
    {134, -1},
};

// Overlap, mapped host memory, concurrent kernels, ECC, unified addresses, stream priorities,
// caches, managed memory, preemption, registered host pointers, cooperative launch, virtual memory
// calls with file descriptors, host registration, memory pools.
constexpr int kYes[] = {15, 19, 31, 32, 41, 78, 79, 80, 83, 89, 90, 91, 95, 99, 102, 103, 115};

// Time limits, integration, compute mode, multi-GPU boards, host atomics, pageable access, fabric,
// sparse arrays, semaphores, GPUDirect, IPC events, MPS, host memory pools, multicast.
constexpr int kNo[] = {17,  18,  20,  34,  35,  84,  85,  86,  88,  98,  100, 101,
                       104, 105, 107, 110, 112, 113, 114, 116, 117, 118, 119, 121,
                       122, 123, 124, 125, 128, 129, 130, 132, 133, 144};

std::optional<int> common_attribute(int attribute) {
  for (const Answer& answer : kCommonAnswers) {
    if (answer.attribute == attribute) return answer.value;
  }
  if (std::ranges::find(kYes, attribute) != std::end(kYes)) return 1;
  if (std::ranges::find(kNo, attribute) != std::end(kNo)) return 0;
  return {};
}

}  // namespace

std::optional<int> device_attribute(const DeviceModel& model, int device, int attribute) {
  constexpr int kPciBus = 33;
  constexpr int kPciDomain = 50;
  if (attribute == kPciBus) return device + 1;
  if (attribute == kPciDomain) return 0;
  const std::optional<int> answer = model_attribute(model, attribute);
  return answer ? answer : common_attribute(attribute);
}

}  // namespace ebbtide::dryrun
