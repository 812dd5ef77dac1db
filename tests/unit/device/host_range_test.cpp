#include "allocator/device/host_range.h"

#include <gtest/gtest.h>

#include <cstring>

namespace ebbtide {
namespace {

constexpr Bytes kGrain{2 * kMiB.value};

unsigned char* byte_at(const HostRange& range, Bytes offset) {
  return static_cast<unsigned char*>(range.base()) + offset.value;
}

TEST(HostRange, GrowsInPlaceToWhatIsAskedOrALittleMore) {
  HostRange range(Bytes{64 * kMiB.value});
  void* const base = range.base();
  ASSERT_TRUE(range.extend_to(Bytes{1}).ok());
  EXPECT_EQ(range.extent(), kGrain);
  *byte_at(range, Bytes{0}) = 1;
  ASSERT_TRUE(range.extend_to(Bytes{10 * kMiB.value}).ok());
  EXPECT_EQ(range.base(), base);
  EXPECT_EQ(*byte_at(range, Bytes{0}), 1);
  std::memset(range.base(), 2, static_cast<std::size_t>(range.extent().value));
}

TEST(HostRange, AskedForLessThanItHasKeepsWhatItHas) {
  HostRange range(Bytes{64 * kMiB.value});
  ASSERT_TRUE(range.extend_to(Bytes{10 * kMiB.value}).ok());
  ASSERT_TRUE(range.extend_to(Bytes{1}).ok());
  EXPECT_EQ(range.extent(), Bytes{10 * kMiB.value});
}

TEST(HostRange, MemoryThatWasGivenBackComesAsZeros) {
  HostRange range(Bytes{64 * kMiB.value});
  ASSERT_TRUE(range.extend_to(Bytes{8 * kMiB.value}).ok());
  std::memset(range.base(), 7, static_cast<std::size_t>(range.extent().value));
  range.shrink_to(kGrain);
  EXPECT_EQ(range.extent(), kGrain);
  EXPECT_EQ(range.peak_reserved(), Bytes{8 * kMiB.value});
  ASSERT_TRUE(range.extend_to(Bytes{8 * kMiB.value}).ok());
  EXPECT_EQ(*byte_at(range, kGrain - Bytes{1}), 7);
  EXPECT_EQ(*byte_at(range, kGrain), 0);
}

TEST(HostRange, NeverGivesBackWhatIsToBeKept) {
  HostRange range(Bytes{64 * kMiB.value});
  ASSERT_TRUE(range.extend_to(Bytes{8 * kMiB.value}).ok());
  *byte_at(range, Bytes{kGrain.value + 1}) = 9;
  range.shrink_to(kGrain + Bytes{2});
  EXPECT_EQ(range.extent(), Bytes{2 * kGrain.value});
  EXPECT_EQ(*byte_at(range, Bytes{kGrain.value + 1}), 9);
}

TEST(HostRange, RefusesMoreThanItsReservationAndStaysAsItWas) {
  HostRange range(Bytes{4 * kMiB.value});
  ASSERT_TRUE(range.extend_to(kGrain).ok());
  const Status refused = range.extend_to(Bytes{5 * kMiB.value});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfHostMemory);
  EXPECT_EQ(range.extent(), kGrain);
}

TEST(HostRange, WithoutAReservationNothingCanBeExtended) {
  HostRange range(Bytes{std::int64_t{1} << 60});
  EXPECT_EQ(range.base(), nullptr);
  EXPECT_FALSE(range.extend_to(Bytes{1}).ok());
}

}  // namespace
}  // namespace ebbtide
