#include "profiler/cupti/cupti_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "tests/unit/cupti/fake_gpu.h"

namespace ebbtide {
namespace {

using testing_support::copy;
using testing_support::FakeCupti;
using testing_support::kernel;
using testing_support::memory;

constexpr ActivityKind kAll[]{ActivityKind::kKernel, ActivityKind::kCopy, ActivityKind::kCopyBetweenDevices,
                              ActivityKind::kMemset, ActivityKind::kMemory};

std::uint64_t steady_now() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

class CuptiSessionTest : public testing::Test {
 protected:
  Result<std::unique_ptr<CuptiSession>> start() { return CuptiSession::start(FakeCupti::path(), ring_, names_); }

  std::vector<EventRecord> drained() {
    std::vector<EventRecord> events(ring_.capacity());
    events.resize(ring_.drain(events));
    return events;
  }
  // Events of one action, and texts by number.
  static std::vector<EventRecord> of(const std::vector<EventRecord>& events, Action action) {
    std::vector<EventRecord> found;
    std::ranges::copy_if(events, std::back_inserter(found), [&](const EventRecord& e) { return e.action == action; });
    return found;
  }
  static std::map<std::uint64_t, std::string> texts(const std::vector<EventRecord>& events) {
    std::map<std::uint64_t, std::string> texts;
    for (const EventRecord& event : of(events, Action::kName)) {
      texts[event.thread].append(reinterpret_cast<const char*>(&event.address), event.detail);
    }
    return texts;
  }

  const FakeCupti fake_;
  EventRing ring_{1024, EventRing::TimeStamp::kTaken};
  OwnerNames names_;
};

TEST_F(CuptiSessionTest, KernelsComeWithTheirNameStreamAndTime) {
  const auto session = start().value();
  fake_.add(kernel("_Z3addPfi", 1000, 1250, 7, 2));
  fake_.add(kernel("not_mangled", 2000, 2001, 14, 2));
  fake_.add(kernel("_Z3addPfi", 3000, 3500, 7, 2));
  session->stop();
  const auto events = drained();
  const auto kernels = of(events, Action::kKernel);
  const auto names = texts(events);
  ASSERT_EQ(kernels.size(), 3U);
  EXPECT_EQ(names.at(kernels[0].address), "add(float*, int)");
  EXPECT_EQ(names.at(kernels[1].address), "not_mangled");
  EXPECT_EQ(kernels[2].address, kernels[0].address);
  EXPECT_EQ(kernels[0].time_ns, 1000U);
  EXPECT_EQ(kernels[0].bytes, 250);
  EXPECT_EQ(kernels[1].stream, 14U);
  EXPECT_EQ(kernels[0].device, 2);
}

TEST_F(CuptiSessionTest, CopiesAndMemoryKeepTheirBytesAndKinds) {
  const auto session = start().value();
  fake_.add(copy(2, 4096, 100, 300));
  fake_.add(memory(MemoryOperation::kAllocation, 0x7000, 1 << 20, 50, "/opt/lib/libnccl.so.2"));
  fake_.add(memory(MemoryOperation::kRelease, 0x7000, 1 << 20, 900));
  session->stop();
  const auto events = drained();
  const EventRecord copied = of(events, Action::kCopy).at(0);
  EXPECT_EQ(copied.bytes, 4096);
  EXPECT_EQ(copied.address, 200U);
  EXPECT_EQ(copied.detail, 2);
  const EventRecord taken = of(events, Action::kCudaAllocate).at(0);
  EXPECT_EQ(taken.address, 0x7000U);
  EXPECT_EQ(taken.bytes, 1 << 20);
  EXPECT_EQ(texts(events).at(taken.stream), "libnccl.so.2");
  EXPECT_EQ(of(events, Action::kCudaFree).at(0).time_ns, 900U);
}

TEST_F(CuptiSessionTest, AnOlderVersionNamesNoLibraries) {
  fake_.set_version(kFirstVersionWithSource - 1);
  const auto session = start().value();
  fake_.add(memory(MemoryOperation::kAllocation, 0x7000, 512, 50, "/opt/lib/libnccl.so.2"));
  session->stop();
  EXPECT_EQ(of(drained(), Action::kCudaAllocate).at(0).stream, 0U);
}

TEST_F(CuptiSessionTest, TimesOfAVersionWithItsOwnClockAreMovedToOurs) {
  fake_.fail("ActivityRegisterTimestampCallback", 1);
  const std::uint64_t before = steady_now();
  const auto session = start().value();
  // The two clocks are read one after the other: no better than the time that took.
  const std::uint64_t doubt = steady_now() - before;
  const std::uint64_t theirs = fake_.now();
  fake_.add(kernel("k", theirs, theirs + 10));
  session->stop();
  const EventRecord event = of(drained(), Action::kKernel).at(0);
  EXPECT_GE(event.time_ns, before);
  EXPECT_LE(event.time_ns, steady_now() + doubt);
}

TEST_F(CuptiSessionTest, StoppedItGivesCuptiBackAndTellsTheTotals) {
  const auto session = start().value();
  EXPECT_TRUE(fake_.is_subscribed());
  for (const ActivityKind kind : kAll) EXPECT_TRUE(fake_.is_enabled(kind));
  fake_.add(kernel("k", 1, 2));
  session->stop();
  session->stop();
  EXPECT_FALSE(fake_.is_subscribed());
  for (const ActivityKind kind : kAll) EXPECT_FALSE(fake_.is_enabled(kind));
  const auto counts = of(drained(), Action::kActivityCount);
  ASSERT_EQ(counts.size(), 2U);
  EXPECT_EQ(counts[0].address, 0U);
  EXPECT_EQ(counts[1].address, 1U);
  EXPECT_EQ(counts[1].bytes, 0);
  EXPECT_TRUE(start().ok());
}

TEST_F(CuptiSessionTest, AnotherProfilerIsOneClearLine) {
  const auto first = start();
  ASSERT_TRUE(first.ok());
  const auto second = start();
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find("another profiler"), std::string::npos);
  first.value()->stop();
  fake_.fail("Subscribe", 39);
  EXPECT_EQ(start().error().message, second.error().message);
}

TEST_F(CuptiSessionTest, MissingPermissionNamesTheRemedyAndLeavesNothingOn) {
  fake_.fail("ActivityEnable", 35);
  const auto refused = start();
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("NVreg_RestrictProfilingToAdminUsers=0"), std::string::npos);
  EXPECT_FALSE(fake_.is_subscribed());
}

TEST_F(CuptiSessionTest, OneRefusedKindLeavesTheOthers) {
  fake_.fail("ActivityEnable", 35, static_cast<std::uint32_t>(ActivityKind::kKernel));
  testing::internal::CaptureStderr();
  const auto session = start();
  const std::string said = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(session.ok());
  EXPECT_NE(said.find("not recorded: kernels (the driver"), std::string::npos) << said;
  EXPECT_TRUE(fake_.is_enabled(ActivityKind::kMemory));
  fake_.add(copy(1, 8, 1, 2));
  session.value()->stop();
  EXPECT_EQ(of(drained(), Action::kCopy).size(), 1U);
}

TEST_F(CuptiSessionTest, OtherErrorsAreNamedAsCuptiNamesThem) {
  fake_.fail("ActivityRegisterCallbacks", 7);
  EXPECT_EQ(start().error().message, "CUPTI refuses: CUPTI_ERROR_INVALID_OPERATION");
  EXPECT_FALSE(fake_.is_subscribed());
}

TEST_F(CuptiSessionTest, NoLibraryOrAnotherOneIsOneClearLine) {
  const auto absent = CuptiSession::start("/nowhere/libcupti.so", ring_, names_);
  ASSERT_FALSE(absent.ok());
  EXPECT_NE(absent.error().message.find("/nowhere/libcupti.so"), std::string::npos);
  const auto foreign = CuptiSession::start("libm.so.6", ring_, names_);
  ASSERT_FALSE(foreign.ok());
  EXPECT_NE(foreign.error().message.find("no CUPTI"), std::string::npos);
}

// A reader drains the ring, as in a process: whatever the order, every record is there or counted.
TEST_F(CuptiSessionTest, MoreRecordsThanTheRingHoldsAllComeWhileSomebodyReads) {
  const auto session = start().value();
  fake_.limit_buffers(64 * 216);
  constexpr std::size_t kCount = 5000;
  std::atomic<bool> is_over{false};
  std::size_t kernels = 0;
  std::thread reader([&] {
    for (bool last = false;; last = is_over) {
      kernels += of(drained(), Action::kKernel).size();
      if (last) return;
    }
  });
  for (std::size_t i = 0; i < kCount; ++i) fake_.add(kernel("k", i + 1, i + 2));
  session->stop();
  is_over = true;
  reader.join();
  EXPECT_EQ(kernels + session->lost(), kCount);
  EXPECT_EQ(session->written(), kernels);
}

TEST_F(CuptiSessionTest, WhenNobodyReadsRecordsAreCountedAndHalfTheRingIsLeft) {
  const auto session = start().value();
  for (int i = 0; i < 3000; ++i) fake_.add(kernel("k", 1, 2));
  session->stop();
  EXPECT_EQ(session->written() + session->lost(), 3000U);
  EXPECT_GT(session->lost(), 0U);
  EXPECT_LT(ring_.recorded(), ring_.capacity() * 3 / 4);
  EXPECT_EQ(ring_.lost(), 0U);
  const auto counts = of(drained(), Action::kActivityCount);
  EXPECT_EQ(counts.back().bytes, static_cast<std::int64_t>(session->lost()));
}

TEST_F(CuptiSessionTest, KernelsWithoutTimesAreCountedAsLost) {
  const auto session = start().value();
  fake_.add(kernel("k", 0, 0));
  fake_.add(kernel("k", 5, 9));
  session->stop();
  EXPECT_EQ(session->lost(), 1U);
  EXPECT_EQ(of(drained(), Action::kKernel).size(), 1U);
}

TEST(ActivityBuffers, TheyAreBoundedAndComeBack) {
  ActivityBuffers buffers;
  std::vector<std::uint8_t*> out;
  for (std::size_t i = 0; i < ActivityBuffers::kMost; ++i) out.push_back(buffers.take());
  EXPECT_EQ(std::ranges::count(out, nullptr), 0);
  EXPECT_EQ(buffers.take(), nullptr);
  std::uint8_t foreign = 0;
  EXPECT_FALSE(buffers.give_back(&foreign));
  EXPECT_TRUE(buffers.give_back(out[3]));
  EXPECT_FALSE(buffers.give_back(out[3]));
  EXPECT_EQ(buffers.take(), out[3]);
  for (const std::uint8_t* buffer : out) EXPECT_TRUE(buffers.give_back(buffer));
}

}  // namespace
}  // namespace ebbtide
