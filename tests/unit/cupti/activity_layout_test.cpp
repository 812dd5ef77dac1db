// Our layouts against CUPTI's own header, where torch's wheels have brought one.
#include "profiler/cupti/activity_layout.h"

#include <gtest/gtest.h>

#if __has_include(<cupti.h>)
#include <cupti.h>

namespace ebbtide {
namespace {

#define EXPECT_SAME_PLACE(theirs, their_field, ours, our_field)            \
  EXPECT_EQ(offsetof(theirs, their_field), offsetof(ours, our_field));     \
  EXPECT_EQ(sizeof(theirs::their_field), sizeof(ours::our_field));         \
  EXPECT_GE(sizeof(theirs), sizeof(ours))

template <typename Kernel>
void expect_kernel() {
  EXPECT_SAME_PLACE(Kernel, kind, KernelActivity, kind);
  EXPECT_SAME_PLACE(Kernel, start, KernelActivity, start);
  EXPECT_SAME_PLACE(Kernel, end, KernelActivity, end);
  EXPECT_SAME_PLACE(Kernel, deviceId, KernelActivity, device);
  EXPECT_SAME_PLACE(Kernel, streamId, KernelActivity, stream);
  EXPECT_SAME_PLACE(Kernel, name, KernelActivity, name);
}

template <typename Copy>
void expect_copy() {
  EXPECT_SAME_PLACE(Copy, copyKind, CopyActivity, copy_kind);
  EXPECT_SAME_PLACE(Copy, bytes, CopyActivity, bytes);
  EXPECT_SAME_PLACE(Copy, start, CopyActivity, start);
  EXPECT_SAME_PLACE(Copy, end, CopyActivity, end);
  EXPECT_SAME_PLACE(Copy, deviceId, CopyActivity, device);
  EXPECT_SAME_PLACE(Copy, streamId, CopyActivity, stream);
}

template <typename Memset>
void expect_memset() {
  EXPECT_SAME_PLACE(Memset, bytes, MemsetActivity, bytes);
  EXPECT_SAME_PLACE(Memset, start, MemsetActivity, start);
  EXPECT_SAME_PLACE(Memset, end, MemsetActivity, end);
  EXPECT_SAME_PLACE(Memset, deviceId, MemsetActivity, device);
  EXPECT_SAME_PLACE(Memset, streamId, MemsetActivity, stream);
}

template <typename Memory>
void expect_memory() {
  EXPECT_SAME_PLACE(Memory, memoryOperationType, MemoryActivity, operation);
  EXPECT_SAME_PLACE(Memory, memoryKind, MemoryActivity, memory_kind);
  EXPECT_SAME_PLACE(Memory, address, MemoryActivity, address);
  EXPECT_SAME_PLACE(Memory, bytes, MemoryActivity, bytes);
  EXPECT_SAME_PLACE(Memory, timestamp, MemoryActivity, time);
  EXPECT_SAME_PLACE(Memory, deviceId, MemoryActivity, device);
}

TEST(ActivityLayout, TheFieldsThatAreReadLieWhereEveryVersionHasThem) {
  expect_kernel<CUpti_ActivityKernel5>();
  expect_kernel<CUpti_ActivityKernel8>();
  expect_kernel<CUpti_ActivityKernel9>();
  expect_copy<CUpti_ActivityMemcpy4>();
  expect_copy<CUpti_ActivityMemcpy5>();
  expect_copy<CUpti_ActivityMemcpyPtoP3>();
  expect_memset<CUpti_ActivityMemset3>();
  expect_memset<CUpti_ActivityMemset4>();
  expect_memory<CUpti_ActivityMemory2>();
  expect_memory<CUpti_ActivityMemory3>();
#if CUPTI_API_VERSION >= 24
  expect_memory<CUpti_ActivityMemory4>();
  EXPECT_EQ(offsetof(CUpti_ActivityMemory4, source), kSourceOffset);
#endif
#if CUPTI_API_VERSION >= 26
  expect_copy<CUpti_ActivityMemcpy6>();
#endif
#if CUPTI_API_VERSION >= 130000
  expect_kernel<CUpti_ActivityKernel10>();
  expect_copy<CUpti_ActivityMemcpyPtoP4>();
#endif
}

TEST(ActivityLayout, NumbersAreTheirs) {
  EXPECT_EQ(int{CUPTI_ACTIVITY_KIND_MEMCPY}, static_cast<int>(ActivityKind::kCopy));
  EXPECT_EQ(int{CUPTI_ACTIVITY_KIND_MEMSET}, static_cast<int>(ActivityKind::kMemset));
  EXPECT_EQ(int{CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL}, static_cast<int>(ActivityKind::kKernel));
  EXPECT_EQ(int{CUPTI_ACTIVITY_KIND_MEMCPY2}, static_cast<int>(ActivityKind::kCopyBetweenDevices));
  EXPECT_EQ(int{CUPTI_ACTIVITY_KIND_MEMORY2}, static_cast<int>(ActivityKind::kMemory));
  EXPECT_EQ(int{CUPTI_ACTIVITY_MEMORY_OPERATION_TYPE_ALLOCATION}, static_cast<int>(MemoryOperation::kAllocation));
  EXPECT_EQ(int{CUPTI_ACTIVITY_MEMORY_OPERATION_TYPE_RELEASE}, static_cast<int>(MemoryOperation::kRelease));
  EXPECT_EQ(int{CUPTI_ACTIVITY_MEMORY_KIND_PINNED}, static_cast<int>(kPinnedMemory));
  EXPECT_EQ(int{CUPTI_ACTIVITY_MEMORY_KIND_DEVICE}, static_cast<int>(kDeviceMemory));
  EXPECT_EQ(int{CUPTI_ACTIVITY_MEMORY_KIND_MANAGED}, static_cast<int>(kManagedMemory));
  EXPECT_EQ(int{CUPTI_ERROR_MAX_LIMIT_REACHED}, static_cast<int>(CuptiResult::kNoMoreRecords));
  EXPECT_EQ(int{CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED}, static_cast<int>(CuptiResult::kInUse));
  EXPECT_EQ(int{CUPTI_ERROR_INSUFFICIENT_PRIVILEGES}, static_cast<int>(CuptiResult::kNotPermitted));
  EXPECT_EQ(int{CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES},
            static_cast<int>(CuptiResult::kNotPermittedOnVirtualDevice));
}

}  // namespace
}  // namespace ebbtide
#endif
