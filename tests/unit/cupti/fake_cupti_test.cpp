// The fake itself: it hands out what it was given, and refuses what CUPTI refuses.
#include "tests/fakes/fake_cupti.h"

#include <gtest/gtest.h>

#include <array>

#include "profiler/cupti/cupti_library.h"
#include "tests/unit/cupti/fake_gpu.h"

namespace ebbtide {
namespace {

using testing_support::copy;
using testing_support::FakeCupti;
using testing_support::kernel;

// What the fake delivered: the kinds of the records, and how many buffers it took.
struct Delivered {
  std::vector<std::uint32_t> kinds;
  int buffers = 0;
  bool has_room = true;
};
Delivered delivered;
alignas(8) std::array<std::uint8_t, 4096> memory_of_buffer;
int (*next_record)(std::uint8_t*, std::size_t, void**) = nullptr;

void request(std::uint8_t** buffer, std::size_t* size, std::size_t* most) {
  *buffer = delivered.has_room ? memory_of_buffer.data() : nullptr;
  *size = delivered.has_room ? memory_of_buffer.size() : 0;
  *most = 0;
}
void complete(void*, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid) {
  ++delivered.buffers;
  void* record = nullptr;
  while (next_record(buffer, valid, &record) == 0) {
    std::uint32_t kind = 0;
    std::memcpy(&kind, record, sizeof kind);
    delivered.kinds.push_back(kind);
  }
}

class FakeCuptiTest : public testing::Test {
 protected:
  FakeCuptiTest() {
    delivered = {};
    next_record = library_.next_record;
  }
  const FakeCupti fake_;
  const CuptiLibrary library_ = CuptiLibrary::load(FakeCupti::path()).value();
};

TEST_F(FakeCuptiTest, RecordsOfEnabledKindsComeInTheirOrderInAsManyBuffersAsTheyNeed) {
  ASSERT_EQ(library_.register_callbacks(&request, &complete), 0);
  ASSERT_EQ(library_.enable(10), 0);
  for (int i = 0; i < 30; ++i) fake_.add(kernel("k", 1, 2));
  fake_.add(copy(1, 8, 1, 2));  // not enabled
  EXPECT_EQ(library_.flush_all(0), 0);
  EXPECT_EQ(delivered.kinds, std::vector<std::uint32_t>(30, 10));
  EXPECT_EQ(delivered.buffers, 2);  // 18 of 216 bytes fit into one
}

TEST_F(FakeCuptiTest, WithoutABufferRecordsAreDroppedAndCountedOnce) {
  ASSERT_EQ(library_.register_callbacks(&request, &complete), 0);
  ASSERT_EQ(library_.enable(10), 0);
  delivered.has_room = false;
  for (int i = 0; i < 3; ++i) fake_.add(kernel("k", 1, 2));
  fake_.deliver();
  std::size_t dropped = 0;
  EXPECT_EQ(library_.dropped_records(nullptr, 0, &dropped), 0);
  EXPECT_EQ(dropped, 3U);
  EXPECT_EQ(library_.dropped_records(nullptr, 0, &dropped), 0);
  EXPECT_EQ(dropped, 0U);
  EXPECT_EQ(delivered.buffers, 0);
}

TEST_F(FakeCuptiTest, ItRefusesASecondSubscriberAndKindsWithoutCallbacks) {
  const CuptiLibrary::Callback nothing = [](void*, int, std::uint32_t, const void*) {};
  void* first = nullptr;
  void* second = nullptr;
  EXPECT_EQ(library_.enable(10), 7);
  EXPECT_EQ(library_.subscribe(&first, nothing, nullptr), 0);
  EXPECT_EQ(library_.subscribe(&second, nothing, nullptr), 39);
  EXPECT_EQ(library_.unsubscribe(first), 0);
  EXPECT_EQ(library_.subscribe(&second, nothing, nullptr), 0);
}

TEST_F(FakeCuptiTest, ItsOwnClockRunsBehindOneThatIsRegistered) {
  const std::uint64_t own = fake_.now();
  ASSERT_EQ(library_.register_clock([]() -> std::uint64_t { return 5; }), 0);
  EXPECT_EQ(fake_.now(), 5U);
  EXPECT_GT(own, 5U);
}

}  // namespace
}  // namespace ebbtide
