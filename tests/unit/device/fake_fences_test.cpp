#include "tests/fakes/fake_fences.h"

#include <gtest/gtest.h>

namespace ebbtide {
namespace {

TEST(FakeFences, WritesDownRecordsAndWaitsInTheirOrder) {
  fakes::FakeFences fences;
  const EventId first = fences.record(StreamId{7});
  const EventId second = fences.record(StreamId{8});
  EXPECT_EQ(fences.outstanding(), 2U);
  fences.wait_and_destroy(StreamId{0}, second);
  fences.wait_and_destroy(StreamId{0}, first);
  const std::vector<std::string> expected{"record 1 on 7", "record 2 on 8", "wait 2 on 0", "wait 1 on 0"};
  EXPECT_EQ(fences.log(), expected);
  EXPECT_EQ(fences.outstanding(), 0U);
  EXPECT_EQ(fences.misuses(), 0);
}

TEST(FakeFences, NoticesAWaitForAnEventThatIsGone) {
  fakes::FakeFences fences;
  const EventId event = fences.record(StreamId{7});
  fences.wait_and_destroy(StreamId{0}, event);
  fences.wait_and_destroy(StreamId{0}, event);
  EXPECT_EQ(fences.misuses(), 1);
}

}  // namespace
}  // namespace ebbtide
