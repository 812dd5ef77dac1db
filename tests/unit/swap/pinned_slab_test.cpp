#include "swap/pinned_slab.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "tests/fakes/fake_copy_device.h"

namespace ebbtide {
namespace {

using fakes::FakeCopyDevice;
using Part = PinnedSlab::Part;

constexpr Bytes kStep{2 * kMiB.value};

TEST(PinnedSlab, HoldsNothingBeforeItIsAsked) {
  FakeCopyDevice device;
  const PinnedSlab slab(device, kGiB);
  EXPECT_EQ(slab.extent(), Bytes{0});
  EXPECT_EQ(slab.limit(), kGiB);
  EXPECT_EQ(device.pinned_bytes(), Bytes{0});
  EXPECT_TRUE(slab.is_valid());
}

TEST(PinnedSlab, GrowsByStepsAtItsUpperEndAndKeepsItsPlaceAndContents) {
  FakeCopyDevice device;
  PinnedSlab slab(device, kGiB);
  ASSERT_TRUE(slab.extend_to(Bytes{100}).ok());
  EXPECT_EQ(slab.extent(), kStep);
  char* const place = slab.at(Offset{0});
  std::memset(place, 7, 100);
  ASSERT_TRUE(slab.extend_to(kStep + Bytes{1}).ok());
  EXPECT_EQ(slab.extent(), kStep + kStep);
  EXPECT_EQ(slab.at(Offset{0}), place);
  EXPECT_EQ(place[99], 7);
  ASSERT_TRUE(slab.extend_to(kMiB).ok());
  EXPECT_EQ(slab.extent(), kStep + kStep);
  EXPECT_EQ(device.pinned_bytes(), slab.pinned());
}

TEST(PinnedSlab, ASpareIsHeldUntilTheSystemRefusesAndThenGivenBack) {
  FakeCopyDevice device;
  PinnedSlab slab(device, kGiB);
  ASSERT_TRUE(slab.extend_to(kStep).ok());
  const Bytes spare = slab.pinned() - slab.extent();
  EXPECT_GT(spare, Bytes{0});
  const Bytes most{100 * kMiB.value};
  device.fail_pins_beyond(most);
  EXPECT_FALSE(slab.extend_to(most).ok());
  EXPECT_LE(device.pinned_bytes(), most - spare) << "nothing is left for others";
  EXPECT_EQ(slab.pinned(), slab.extent());
}

TEST(PinnedSlab, OneReservationIsOnePin) {
  FakeCopyDevice device;
  PinnedSlab slab(device, kGiB);
  ASSERT_TRUE(slab.extend_to(kGiB).ok());
  EXPECT_EQ(slab.growths(), 1);
  EXPECT_EQ(slab.extent(), kGiB);
  EXPECT_EQ(device.pinned_bytes(), kGiB) << "the spare went";
}

TEST(PinnedSlab, StepsGrowWithItSoThatPinsStayFew) {
  FakeCopyDevice device;
  PinnedSlab slab(device, Bytes{64 * kGiB.value});
  for (Bytes wanted = kStep; wanted <= slab.budget(); wanted += kStep) {
    ASSERT_TRUE(slab.extend_to(wanted).ok());
    ASSERT_LE(slab.extent().value,
              std::max((wanted + kStep).value, wanted.value + wanted.value / 32 + kStep.value));
  }
  EXPECT_LT(slab.growths(), 400);
}

TEST(PinnedSlab, NeverExceedsAnOddBudget) {
  FakeCopyDevice device;
  const Bytes budget = kStep + Bytes{5000};
  PinnedSlab slab(device, budget);
  ASSERT_TRUE(slab.extend_to(kStep + Bytes{512}).ok());
  EXPECT_LE(slab.extent(), budget);
  EXPECT_LE(device.pinned_bytes(), budget);
  const Status beyond = slab.extend_to(budget + Bytes{1});
  ASSERT_FALSE(beyond.ok());
  EXPECT_EQ(beyond.error().code, ErrorCode::kOutOfHostMemory);
  EXPECT_NE(beyond.error().message.find("host budget"), std::string::npos)
      << beyond.error().message;
  EXPECT_TRUE(slab.is_valid());
}

TEST(PinnedSlab, TakesJustEnoughWhenTheSystemGrantsNoWholeStep) {
  FakeCopyDevice device;
  PinnedSlab slab(device, Bytes{512 * kMiB.value});
  device.fail_pins_beyond(kMiB);
  ASSERT_TRUE(slab.extend_to(kMiB).ok());
  EXPECT_EQ(slab.extent(), kMiB);
}

TEST(PinnedSlab, WhenPinnedMemoryCannotBeHadTheLimitIsWhatThereIs) {
  FakeCopyDevice device;
  PinnedSlab slab(device, Bytes{512 * kMiB.value});
  ASSERT_TRUE(slab.extend_to(kStep).ok());
  device.fail_pins_beyond(kStep);
  const Status refused = slab.extend_to(kStep + Bytes{1});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfHostMemory);
  EXPECT_EQ(slab.extent(), kStep);
  EXPECT_EQ(slab.limit(), kStep);
  const int calls = device.calls();
  EXPECT_FALSE(slab.extend_to(kStep + kStep).ok());
  EXPECT_EQ(device.calls(), calls) << "the system was asked again";
}

TEST(PinnedSlab, APartOfWhatWasRefusedIsTakenIfItIsGranted) {
  FakeCopyDevice device;
  PinnedSlab slab(device, Bytes{512 * kMiB.value});
  device.fail_pins_beyond(Bytes{40 * kMiB.value});
  EXPECT_FALSE(slab.extend_to(Bytes{128 * kMiB.value}).ok());
  EXPECT_EQ(slab.extent(), Bytes{32 * kMiB.value});
  EXPECT_EQ(slab.limit(), slab.extent());
  EXPECT_TRUE(slab.is_valid());
}

TEST(PinnedSlab, CopiesAreCutWhereRegistrationsMeet) {
  FakeCopyDevice device;
  PinnedSlab slab(device, kGiB);
  ASSERT_TRUE(slab.extend_to(kStep).ok());
  ASSERT_TRUE(slab.extend_to(kStep + kStep).ok());
  const Offset border{kStep.value};
  EXPECT_EQ(slab.first_part(Offset{0}, kStep), (Part{Offset{0}, kStep}));
  EXPECT_EQ(slab.first_part(border, Bytes{8}), (Part{border, Bytes{8}}));
  EXPECT_EQ(slab.first_part(border - Bytes{8}, Bytes{24}), (Part{border - Bytes{8}, Bytes{8}}));
}

TEST(PinnedSlab, ABudgetOfNothingGivesNothing) {
  FakeCopyDevice device;
  PinnedSlab slab(device, Bytes{0});
  EXPECT_FALSE(slab.extend_to(Bytes{1}).ok());
  EXPECT_TRUE(slab.is_valid());
}

}  // namespace
}  // namespace ebbtide
