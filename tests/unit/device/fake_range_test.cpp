#include "tests/fakes/fake_range.h"

#include <gtest/gtest.h>

#include <cstring>

namespace ebbtide {
namespace {

using fakes::FakeRange;
using Kind = FakeRange::Call::Kind;

FakeRange::Options of_capacity(Bytes capacity) {
  FakeRange::Options options;
  options.capacity = capacity;
  return options;
}

TEST(FakeRange, BeginsEmptyAtAPlaceThatNeverMoves) {
  FakeRange range(of_capacity(kMiB));
  void* const base = range.base();
  EXPECT_NE(base, nullptr);
  EXPECT_EQ(range.extent(), Bytes{0});
  ASSERT_TRUE(range.extend_to(Bytes{1000}).ok());
  EXPECT_EQ(range.extent(), Bytes{1024});
  EXPECT_EQ(range.base(), base);
  EXPECT_EQ(range.reserved(), Bytes{1024});
}

TEST(FakeRange, RefusesMoreThanItsCapacityAndStaysAsItWas) {
  FakeRange range(of_capacity(kMiB));
  ASSERT_TRUE(range.extend_to(kMiB).ok());
  const Status refused = range.extend_to(kMiB + Bytes{1});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfDeviceMemory);
  EXPECT_EQ(range.extent(), kMiB);
}

TEST(FakeRange, FailsExactlyTheCallItWasToldTo) {
  FakeRange range;
  range.fail_extend(2);
  EXPECT_TRUE(range.extend_to(Bytes{512}).ok());
  EXPECT_FALSE(range.extend_to(Bytes{1024}).ok());
  EXPECT_EQ(range.extent(), Bytes{512});
  EXPECT_TRUE(range.extend_to(Bytes{1024}).ok());
}

TEST(FakeRange, GrowsOnlyFromEmptyWhenItCannotGrowInPlace) {
  FakeRange::Options options;
  options.grows_in_place = false;
  FakeRange range(options);
  EXPECT_FALSE(range.grows_in_place());
  ASSERT_TRUE(range.extend_to(Bytes{512}).ok());
  const Status refused = range.extend_to(Bytes{1024});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  range.shrink_to(Bytes{0});
  EXPECT_TRUE(range.extend_to(Bytes{1024}).ok());
}

TEST(FakeRange, WritesDownEveryCallWithItsOutcome) {
  FakeRange range(of_capacity(Bytes{1024}));
  static_cast<void>(range.extend_to(Bytes{1024}));
  static_cast<void>(range.extend_to(Bytes{2048}));
  range.shrink_to(Bytes{600});
  const std::vector<FakeRange::Call> expected{{Kind::kExtend, Bytes{1024}, Bytes{1024}, true},
                                              {Kind::kExtend, Bytes{2048}, Bytes{1024}, false},
                                              {Kind::kShrink, Bytes{600}, Bytes{1024}, true}};
  EXPECT_EQ(range.calls(), expected);
  EXPECT_EQ(range.peak_reserved(), Bytes{1024});
}

TEST(FakeRange, GivesBackWholeGrainsInsideAndFillsThemFromTheLowestOn) {
  FakeRange range(of_capacity(Bytes{4096}));
  ASSERT_TRUE(range.extend_to(Bytes{4096}).ok());
  range.release_inside({{Offset{2000}, Offset{3100}}, {Offset{100}, Offset{1100}}}, Bytes{700});
  const std::vector<Span> holes{{Offset{512}, Offset{1024}}, {Offset{2048}, Offset{3072}}};
  range.release_inside({{Offset{100}, Offset{1100}}}, Bytes{1});
  EXPECT_EQ(range.holes(), holes);
  EXPECT_EQ(range.extent(), Bytes{4096});
  EXPECT_EQ(range.held(), Bytes{4096 - 1536});
  range.set_capacity(Bytes{4096 - 1024});
  EXPECT_FALSE(range.fill({Offset{2048}, Offset{2049}}).ok()) << "the lower one is filled first, and takes what there is";
  EXPECT_EQ(range.held(), Bytes{4096 - 1024});
  range.set_capacity(Bytes{8192});
  EXPECT_TRUE(range.fill({Offset{2048}, Offset{2049}}).ok());
  EXPECT_EQ(range.holes(), (std::vector<Span>{{Offset{2560}, Offset{3072}}}));
  ASSERT_TRUE(range.extend_to(Bytes{5000}).ok());
  EXPECT_TRUE(range.holes().empty());
}

TEST(FakeRange, IsRealMemoryWhenAsked) {
  FakeRange::Options options = of_capacity(kMiB);
  options.is_real = true;
  FakeRange range(options);
  ASSERT_TRUE(range.extend_to(kMiB).ok());
  std::memset(range.base(), 0x5A, static_cast<std::size_t>(kMiB.value));
  EXPECT_EQ(static_cast<unsigned char*>(range.base())[kMiB.value - 1], 0x5A);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(range.base()) % 4096, 0U);
}

}  // namespace
}  // namespace ebbtide
