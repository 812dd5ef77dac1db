#include "dryrun/core/device_memory.h"

#include <gtest/gtest.h>

#include <cstring>

#include "dryrun/core/pointer.h"

namespace ebbtide::dryrun {
namespace {

constexpr Bytes kPage = kGranularity;
constexpr Bytes pages(std::int64_t count) { return {count * kPage.value}; }

TEST(DeviceMemory, AllocationsAreCountedInTheDriversGranularity) {
  DeviceMemory memory(pages(4));
  const auto first = memory.allocate({1});
  ASSERT_TRUE(first);
  EXPECT_EQ(memory.used(), pages(1));
  ASSERT_TRUE(memory.allocate(pages(1) + Bytes{1}));
  EXPECT_EQ(memory.used(), pages(3));
  EXPECT_TRUE(memory.is_valid());
}

TEST(DeviceMemory, CapacityIsExact) {
  DeviceMemory memory(pages(3));
  ASSERT_TRUE(memory.allocate(pages(2)));
  EXPECT_FALSE(memory.allocate(pages(1) + Bytes{1}));
  EXPECT_TRUE(memory.allocate(pages(1)));
  EXPECT_FALSE(memory.allocate({1}));
  EXPECT_EQ(memory.used(), memory.capacity());
  EXPECT_TRUE(memory.is_valid());
}

TEST(DeviceMemory, FreedMemoryComesBackAndThePeakStays) {
  DeviceMemory memory(pages(4));
  const auto address = memory.allocate(pages(4));
  ASSERT_TRUE(address);
  EXPECT_EQ(memory.deallocate(*address), pages(4));
  EXPECT_EQ(memory.used(), Bytes{});
  EXPECT_EQ(memory.peak(), pages(4));
  memory.reset_peak();
  EXPECT_EQ(memory.peak(), Bytes{});
  EXPECT_FALSE(memory.deallocate(*address)) << "freed twice";
  EXPECT_EQ(memory.allocate(pages(1)), address) << "the lowest free address is used first";
}

TEST(DeviceMemory, FreedMemoryReadsAsZero) {
  DeviceMemory memory(pages(1));
  const auto address = memory.allocate(pages(1));
  ASSERT_TRUE(address);
  std::memset(to_pointer(*address), 0x5a, 100);
  memory.deallocate(*address);
  ASSERT_EQ(memory.allocate(pages(1)), address);
  EXPECT_EQ(*static_cast<char*>(to_pointer(*address + 50)), 0);
}

TEST(DeviceMemory, PhysicalMemoryCountsUntilReleasedAndUnmapped) {
  DeviceMemory memory(pages(2));
  const auto range = memory.reserve(pages(10), kPage);
  const auto handle = memory.create(pages(2));
  ASSERT_TRUE(range && handle);
  EXPECT_EQ(memory.used(), pages(2)) << "addresses cost nothing, memory does";
  EXPECT_FALSE(memory.create(pages(1)));
  EXPECT_EQ(memory.map(*range, pages(2), *handle), MapStatus::kOk);
  EXPECT_TRUE(memory.release(*handle));
  EXPECT_EQ(memory.used(), pages(2)) << "mapped memory stays";
  EXPECT_EQ(memory.unmap(*range, pages(2)), MapStatus::kOk);
  EXPECT_EQ(memory.used(), Bytes{});
  EXPECT_TRUE(memory.unreserve(*range));
  EXPECT_TRUE(memory.is_valid());
}

TEST(DeviceMemory, MappingsAreChecked) {
  DeviceMemory memory(pages(8));
  const auto range = memory.reserve(pages(4), kPage);
  const auto first = memory.create(pages(2));
  const auto second = memory.create(pages(2));
  ASSERT_TRUE(range && first && second);
  const std::uintptr_t page = static_cast<std::uintptr_t>(kPage.value);
  EXPECT_EQ(memory.map(*range, pages(2), 999), MapStatus::kNoSuchHandle);
  EXPECT_EQ(memory.map(*range + 3 * page, pages(2), *first), MapStatus::kOutsideReservation);
  EXPECT_EQ(memory.map(*range, pages(2), *first), MapStatus::kOk);
  EXPECT_EQ(memory.map(*range + page, pages(2), *second), MapStatus::kAlreadyMapped);
  EXPECT_EQ(memory.map(*range + 2 * page, pages(2), *first), MapStatus::kAlreadyMapped);
  EXPECT_EQ(memory.unmap(*range, pages(1)), MapStatus::kNotMapped) << "half a mapping";
  EXPECT_EQ(memory.map(*range + 2 * page, pages(2), *second), MapStatus::kOk);
  EXPECT_EQ(memory.unmap(*range, pages(4)), MapStatus::kOk) << "two mappings at once";
  EXPECT_EQ(memory.used(), pages(4)) << "both handles are still held";
  EXPECT_TRUE(memory.is_valid());
}

TEST(DeviceMemory, RetainedHandlesNeedEachTheirRelease) {
  DeviceMemory memory(pages(1));
  const auto handle = memory.create(pages(1));
  ASSERT_TRUE(handle && memory.retain(*handle));
  EXPECT_TRUE(memory.release(*handle));
  EXPECT_EQ(memory.used(), pages(1));
  EXPECT_TRUE(memory.release(*handle));
  EXPECT_EQ(memory.used(), Bytes{});
  EXPECT_FALSE(memory.release(*handle));
}

TEST(AddressSpace, RangesFillTheLowestGapThatFits) {
  AddressSpace space({1 << 20}, {1 << 20});
  ASSERT_TRUE(space.is_valid());
  const auto a = space.acquire({4096}, {4096});
  const auto b = space.acquire({8192}, {4096});
  const auto c = space.acquire({4096}, {4096});
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(space.release(*b), Bytes{8192});
  EXPECT_GT(*space.acquire({12288}, {4096}), *c);
  EXPECT_EQ(space.acquire({8192}, {4096}), b);
  EXPECT_FALSE(space.acquire({1 << 20}, {4096}));
}

}  // namespace
}  // namespace ebbtide::dryrun
