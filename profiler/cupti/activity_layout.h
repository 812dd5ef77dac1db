// How CUPTI's activity records lie in memory: the fields that are read here, at the places that they have kept from
// CUDA 11 to 13. Records grow at their end from version to version; CUPTI itself steps from one to the next.
//
// Facts: NVIDIA's CUPTI reference, CUpti_ActivityKernel5 to 10, Memcpy4 to 6, MemcpyPtoP3 and 4, Memset3 and 4,
// Memory2 to 4; tests/unit/cupti/activity_layout_test.cpp compares them with the header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ebbtide {

enum class ActivityKind : std::uint32_t {
  kCopy = 1,
  kMemset = 2,
  kKernel = 10,
  kCopyBetweenDevices = 22,
  kMemory = 49,
};

enum class MemoryOperation : std::uint32_t { kAllocation = 1, kRelease = 2 };

// Results of CUPTI's functions that mean something to a user.
enum class CuptiResult : int {
  kSuccess = 0,
  kNoMoreRecords = 12,
  kInUse = 39,  // another subscriber
  kNotPermitted = 35,
  kNotPermittedOnVirtualDevice = 40,
};

// Times are nanoseconds; both are 0 where the device told none.
struct KernelActivity {
  ActivityKind kind;
  std::uint8_t unread_1[12];
  std::uint64_t start, end;
  std::uint8_t unread_2[8];
  std::uint32_t device, context, stream;
  std::uint8_t unread_3[52];
  const char* name;  // mangled; CUPTI's
};
static_assert(offsetof(KernelActivity, start) == 16 && offsetof(KernelActivity, device) == 40);
static_assert(offsetof(KernelActivity, name) == 104 && sizeof(KernelActivity) == 112);

// Also of a copy between devices, up to here.
struct CopyActivity {
  ActivityKind kind;
  std::uint8_t copy_kind, source_kind, target_kind, flags;
  std::uint64_t bytes;
  std::uint64_t start, end;
  std::uint32_t device, context, stream;
};
static_assert(offsetof(CopyActivity, bytes) == 8 && offsetof(CopyActivity, stream) == 40);
static_assert(sizeof(CopyActivity) == 48);

struct MemsetActivity {
  ActivityKind kind;
  std::uint32_t value;
  std::uint64_t bytes;
  std::uint64_t start, end;
  std::uint32_t device, context, stream;
};
static_assert(offsetof(MemsetActivity, bytes) == 8 && offsetof(MemsetActivity, stream) == 40);
static_assert(sizeof(MemsetActivity) == 48);

struct MemoryActivity {
  ActivityKind kind;
  MemoryOperation operation;
  std::uint32_t memory_kind;
  std::uint32_t correlation;
  std::uint64_t address, bytes;
  std::uint64_t time;
  std::uint64_t program_counter;
  std::uint32_t process, device, context, stream;
};
static_assert(offsetof(MemoryActivity, address) == 16 && offsetof(MemoryActivity, device) == 52);
static_assert(sizeof(MemoryActivity) == 64);

// Kinds of memory that lie on the device. Managed memory may.
inline constexpr std::uint32_t kPinnedMemory = 2;
inline constexpr std::uint32_t kDeviceMemory = 3;
inline constexpr std::uint32_t kManagedMemory = 5;

// From CUDA 12.6 on a memory record ends with the path of the library that asked, if that was switched on.
inline constexpr std::uint32_t kFirstVersionWithSource = 24;
inline constexpr std::size_t kSourceOffset = 120;

}  // namespace ebbtide
