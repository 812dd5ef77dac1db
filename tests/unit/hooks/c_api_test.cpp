// The C interface as a program meets it, with one engine over fake memory behind it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "allocator/device/stream_fences.h"
#include "hooks/ebbtide.h"
#include "hooks/registry.h"
#include "tests/fakes/fake_range.h"

namespace ebbtide {
namespace {

constexpr int kDevice = 3;

// Settings are read once, at the first call of the process: they must be there before.
const bool kEnvironmentIsSet = [] {
  ::setenv("EBBTIDE", "1", 1);
  ::setenv("EBBTIDE_REPORT", "off", 1);
  return true;
}();

// The engine of kDevice; engines are never removed, so it is the same for all tests of the process.
Engine& engine() {
  static Engine* const engine = [] {
    Registry::Device device;
    device.options.device = kDevice;
    device.range = std::make_unique<fakes::FakeRange>();
    device.fences = std::make_unique<NoFences>();
    return &Registry::get().add(std::move(device));
  }();
  return *engine;
}

ebbtide_stats stats_of_device() {
  ebbtide_stats stats{};
  stats.struct_size = sizeof(stats);
  EXPECT_EQ(ebbtide_get_stats(kDevice, &stats), EBBTIDE_OK) << ebbtide_last_error();
  return stats;
}

// One iteration through the engine, upstream standing in for what it does not serve.
void iterate() {
  static std::uintptr_t next_upstream = 0x1000;
  EXPECT_EQ(ebbtide_step(), EBBTIDE_OK);
  struct Tensor {
    void* address;
    bool is_arena;
  };
  std::vector<Tensor> tensors;
  for (int i = 1; i <= 8; ++i) {
    const Bytes size{i * kMiB.value};
    const Engine::Grant grant = engine().allocate(size, StreamId{});
    void* address = grant.address;
    if (address == nullptr) {
      address = reinterpret_cast<void*>(next_upstream += 64 * 1024 * 1024);
      engine().note_upstream(address, size, grant);
    }
    tensors.push_back({address, grant.address != nullptr});
  }
  for (const Tensor& tensor : tensors) {
    if (tensor.is_arena) {
      EXPECT_TRUE(engine().deallocate(tensor.address));
    } else {
      engine().forget_upstream(tensor.address);
    }
  }
}

TEST(CInterface, ReadsTheModeFromTheEnvironment) {
  ASSERT_TRUE(kEnvironmentIsSet);
  EXPECT_EQ(ebbtide_check_settings(), EBBTIDE_OK) << ebbtide_last_error();
  EXPECT_EQ(ebbtide_mode(), 2);
  EXPECT_STREQ(ebbtide_version(), "0.1.0");
}

TEST(CInterface, StatsOfADeviceThatNobodyServesAreUnsupportedWithAReason) {
  ebbtide_stats stats{};
  stats.struct_size = sizeof(stats);
  stats.live_bytes = 77;
  EXPECT_EQ(ebbtide_get_stats(42, &stats), EBBTIDE_UNSUPPORTED);
  EXPECT_NE(std::string(ebbtide_last_error()).find("42"), std::string::npos) << ebbtide_last_error();
  EXPECT_EQ(stats.live_bytes, 77);
}

TEST(CInterface, StatsFollowWhatTheEngineDid) {
  static_cast<void>(engine());
  const ebbtide_stats before = stats_of_device();
  iterate();
  iterate();
  EXPECT_EQ(ebbtide_wait_for_plans(), EBBTIDE_OK);
  iterate();
  iterate();
  const ebbtide_stats after = stats_of_device();
  EXPECT_EQ(after.device, kDevice);
  EXPECT_EQ(after.allocations - before.allocations, 32);
  EXPECT_EQ(after.allocated_bytes - before.allocated_bytes, 4 * 36 * kMiB.value);
  EXPECT_GT(after.planned_bytes, 0);
  EXPECT_EQ(after.serving, 1);
  EXPECT_EQ(after.live_bytes, 0);
  EXPECT_GE(after.peak_live_bytes, 36 * kMiB.value);
}

TEST(CInterface, AnOlderCallersStructIsFilledAsFarAsItGoes) {
  static_cast<void>(engine());
  std::vector<unsigned char> memory(sizeof(ebbtide_stats), 0xAB);
  auto* stats = reinterpret_cast<ebbtide_stats*>(memory.data());
  const std::size_t known = offsetof(ebbtide_stats, live_bytes);
  stats->struct_size = known;
  ASSERT_EQ(ebbtide_get_stats(kDevice, stats), EBBTIDE_OK);
  EXPECT_EQ(stats->struct_size, known);
  EXPECT_EQ(stats->device, kDevice);
  for (std::size_t i = known; i < memory.size(); ++i) ASSERT_EQ(memory[i], 0xAB) << i;
}

TEST(CInterface, ANewerCallersStructIsFilledAsFarAsWeKnow) {
  static_cast<void>(engine());
  std::vector<unsigned char> memory(sizeof(ebbtide_stats) + 64, 0xAB);
  auto* stats = reinterpret_cast<ebbtide_stats*>(memory.data());
  stats->struct_size = memory.size();
  ASSERT_EQ(ebbtide_get_stats(kDevice, stats), EBBTIDE_OK);
  EXPECT_EQ(stats->struct_size, memory.size());
  EXPECT_EQ(stats->lost_events, 0);
  for (std::size_t i = sizeof(ebbtide_stats); i < memory.size(); ++i) ASSERT_EQ(memory[i], 0xAB) << i;
}

// A caller that forgot to set the size gets an error, or at the least nothing written.
TEST(CInterface, AStructOfSizeZeroIsNotWrittenTo) {
  static_cast<void>(engine());
  std::vector<unsigned char> memory(sizeof(ebbtide_stats), 0);
  static_cast<void>(ebbtide_get_stats(kDevice, reinterpret_cast<ebbtide_stats*>(memory.data())));
  EXPECT_EQ(memory, std::vector<unsigned char>(sizeof(ebbtide_stats), 0));
}

TEST(CInterface, DevicesAreCountedBeyondTheCapacity) {
  static_cast<void>(engine());
  const std::size_t count = ebbtide_devices(nullptr, 0);
  ASSERT_EQ(count, 1U);
  std::array<int, 2> devices{-7, -7};
  EXPECT_EQ(ebbtide_devices(devices.data(), devices.size()), 1U);
  EXPECT_EQ(devices[0], kDevice);
  EXPECT_EQ(devices[1], -7);
}

TEST(CInterface, ReportLengthsAreThoseOfSnprintf) {
  static_cast<void>(engine());
  const std::size_t length = ebbtide_report(nullptr, 0);
  ASSERT_GT(length, 40U);
  std::string whole(length + 1, '#');
  EXPECT_EQ(ebbtide_report(whole.data(), whole.size()), length);
  EXPECT_EQ(std::strlen(whole.c_str()), length);
  std::string part(16, '#');
  EXPECT_EQ(ebbtide_report(part.data(), 11), length);
  EXPECT_EQ(part.substr(0, 10), whole.substr(0, 10));
  EXPECT_EQ(part[10], '\0');
  EXPECT_EQ(part.substr(11), "#####");
  char one = '#';
  EXPECT_EQ(ebbtide_report(&one, 1), length);
  EXPECT_EQ(one, '\0');
}

TEST(CInterface, MarksOfUnknownKindsAreRefused) {
  EXPECT_EQ(ebbtide_mark(static_cast<ebbtide_mark_kind>(5), 0), EBBTIDE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(ebbtide_last_error()).find("ebbtide_mark"), std::string::npos);
  EXPECT_EQ(ebbtide_mark(EBBTIDE_MARK_OPTIMIZER_END, 0), EBBTIDE_OK);
}

TEST(CInterface, AMarkTakesTheExtentsOfItsInput) {
  std::array<std::int64_t, EBBTIDE_MAX_EXTENTS + 1> extents;
  extents.fill(4);
  EXPECT_EQ(ebbtide_mark_input(EBBTIDE_MARK_STEP, 0, extents.data(), 2), EBBTIDE_OK);
  EXPECT_EQ(ebbtide_mark_input(EBBTIDE_MARK_STEP, 0, extents.data(), extents.size()), EBBTIDE_OK) << "too many are left out";
  EXPECT_EQ(ebbtide_mark_input(EBBTIDE_MARK_STEP, 0, nullptr, 0), EBBTIDE_OK);
  EXPECT_EQ(ebbtide_mark_input(EBBTIDE_MARK_STEP, 0, nullptr, 2), EBBTIDE_INVALID_ARGUMENT);
  const std::int64_t pieces[] = {2, 1000, -1024, -976};
  EXPECT_EQ(ebbtide_mark_input(EBBTIDE_MARK_STEP, 0, pieces, std::size(pieces)), EBBTIDE_OK);
  const std::int64_t nonsense[] = {2, std::numeric_limits<std::int64_t>::min()};
  EXPECT_EQ(ebbtide_mark_input(EBBTIDE_MARK_STEP, 0, nonsense, std::size(nonsense)), EBBTIDE_INVALID_ARGUMENT);
}

TEST(CInterface, WarmUpPlansTheIterationInsideIt) {
  static_cast<void>(engine());
  EXPECT_EQ(ebbtide_warmup_begin(), EBBTIDE_OK);
  iterate();
  EXPECT_EQ(ebbtide_warmup_end(), EBBTIDE_OK);
  const ebbtide_stats stats = stats_of_device();
  EXPECT_GT(stats.plans, 0);
  EXPECT_EQ(stats.serving, 1);
  EXPECT_EQ(stats.plan_height_bytes, 36 * kMiB.value);
  EXPECT_EQ(stats.plan_lower_bound_bytes, 36 * kMiB.value);
}

TEST(CInterface, ATraceThatCannotBeReadIsBadWithTheReason) {
  ebbtide_trace_summary summary{};
  summary.struct_size = sizeof(summary);
  EXPECT_NE(ebbtide_summarize_trace("no/such/file.ebb", &summary), EBBTIDE_OK);
  EXPECT_NE(std::string(ebbtide_last_error()).find("no/such/file.ebb"), std::string::npos) << ebbtide_last_error();
  const std::string path = testing::TempDir() + "ebbtide-c-" + std::to_string(::getpid()) + ".ebb";
  std::FILE* file = std::fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  std::fputs("this is no trace, and long enough to hold the header of one", file);
  std::fclose(file);
  EXPECT_EQ(ebbtide_summarize_trace(path.c_str(), &summary), EBBTIDE_BAD_TRACE) << ebbtide_last_error();
  std::remove(path.c_str());
}

// Last: nothing is served afterwards.
TEST(CInterfaceEnd, FinishMayBeCalledTwiceAndAllocationGoesOnUnplanned) {
  static_cast<void>(engine());
  EXPECT_EQ(ebbtide_finish(), EBBTIDE_OK);
  EXPECT_EQ(ebbtide_finish(), EBBTIDE_OK);
  EXPECT_EQ(engine().allocate(kMiB, StreamId{}).address, nullptr);
  EXPECT_EQ(ebbtide_step(), EBBTIDE_OK);
}

}  // namespace
}  // namespace ebbtide
