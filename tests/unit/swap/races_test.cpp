// Order between streams: random schedules on a device that computes, and the known races by name.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <random>
#include <utility>

#include "allocator/device/host_copy_device.h"
#include "tests/fakes/fake_training.h"

namespace ebbtide {
namespace {

using fakes::FakeCopyDevice;
using fakes::kCompute;
using fakes::FakeTraining;
using fakes::Schedule;

constexpr int kSchedules = 10'000;

Schedule random_schedule(unsigned seed) {
  std::minstd_rand chance(seed);
  const auto from = [&](int low, int high) {
    return low + static_cast<int>(chance() % static_cast<unsigned>(high - low + 1));
  };
  Schedule schedule{.seed = seed, .layers = from(1, 6), .pieces = from(1, 4)};
  schedule.swapped_pieces = from(0, schedule.pieces);
  schedule.in_flight = from(1, 2);
  schedule.prefetch = from(0, 2);
  schedule.forwards = from(1, 2);
  schedule.iterations = from(0, 15) == 0 ? 5 : from(1, 2);
  schedule.speed = from(0, 5);
  schedule.abandons = from(0, 3) == 0;
  schedule.lets_go_together = from(0, 1) == 0;
  if (from(0, 3) == 0) schedule.host_bytes = from(0, 12) * 512;
  return schedule;
}

TEST(SwapRaces, TenThousandRandomSchedulesGiveTheSameBits) {
  for (unsigned seed = 1; seed <= kSchedules; ++seed) {
    const Schedule schedule = random_schedule(seed);
    ASSERT_EQ(FakeTraining::run_on_fake(schedule), FakeTraining::expected(schedule)) << schedule;
    ASSERT_FALSE(testing::Test::HasFailure()) << schedule;
  }
}

TEST(SwapRaces, TenThousandRandomSchedulesOnHostStreamsGiveTheSameBits) {
  std::unique_ptr<Swap> swap;
  for (unsigned seed = 1; seed <= kSchedules; ++seed) {
    const Schedule schedule = random_schedule(seed);
    // A new one each time would mean two new threads each time.
    if (seed % 100 == 1) {
      swap = Swap::open(std::make_unique<HostCopyDevice>(),
                        {.host_budget = Bytes{schedule.host_bytes}})
                 .value();
    }
    FakeTraining training(schedule, *swap, nullptr);
    ASSERT_EQ(training.run(), FakeTraining::expected(schedule)) << schedule;
    ASSERT_FALSE(testing::Test::HasFailure()) << schedule;
  }
}

TEST(SwapRaces, WithoutItsWaitsTheSameSchedulesGiveOtherBits) {
  int wrong = 0;
  for (unsigned seed = 1; seed <= 200; ++seed) {
    Schedule schedule = random_schedule(seed);
    schedule.ignores_waits = true;
    wrong += FakeTraining::run_on_fake(schedule) == FakeTraining::expected(schedule) ? 0 : 1;
  }
  EXPECT_GT(wrong, 50);
}

// One race: a swap on a fake device whose streams a test holds still. The same story is told with
// and without waits; without them it must end badly, or it would show nothing.
class SwapRace : public testing::TestWithParam<bool> {
 protected:
  static constexpr int kWords = 64;
  static constexpr Bytes kBytes{kWords * 4};
  using Tensor = std::array<std::uint32_t, kWords>;

  SwapRace() {
    auto device = std::make_unique<FakeCopyDevice>(
        FakeCopyDevice::Options{.most_steps_per_call = 0, .ignores_waits = GetParam()});
    device_ = device.get();
    swap_ = Swap::open(std::move(device), {.host_budget = kMiB}).value();
  }

  void write(Tensor& tensor, std::uint32_t value) {
    device_->launch(kCompute, [&tensor, value] { tensor.fill(value); });
  }
  void run() {
    while (device_->step()) {
    }
  }
  Ticket swap_out(Tensor& tensor) {
    return swap_->swap_out(std::array{SwapSource{tensor.data(), kBytes}}, kCompute).value();
  }
  void swap_in(Ticket ticket, Tensor& target) {
    EXPECT_TRUE(swap_->swap_in(ticket, Offset{0}, target.data(), kBytes, kCompute).ok());
  }
  void await_out(Ticket ticket) { EXPECT_TRUE(swap_->await_out(ticket, kCompute).ok()); }
  void await_in(Ticket ticket) { EXPECT_TRUE(swap_->await_in(ticket, kCompute).ok()); }
  // All of `tensor` is `value` exactly if waits are kept.
  void expect(const Tensor& tensor, std::uint32_t value) {
    device_->finish();
    Tensor wanted;
    wanted.fill(value);
    EXPECT_EQ(tensor == wanted, !GetParam());
  }

  FakeCopyDevice* device_;
  std::unique_ptr<Swap> swap_;
  Tensor a_{}, b_{}, c_{};
};

TEST_P(SwapRace, Torchtune1867_ATensorIsOverwrittenAfterItsDeletionWhileItsCopyOutIsLate) {
  write(a_, 1);
  const Ticket ticket = swap_out(a_);
  await_out(ticket);
  write(a_, 2);  // its memory was freed and belongs to another tensor
  device_->hold(FakeCopyDevice::kOut);
  run();
  swap_in(ticket, b_);
  expect(b_, 1);
}

TEST_P(SwapRace, Megatron7398_AnInlineReloadIsAskedForBeforeItsOwnCopyOutHasEnded) {
  write(a_, 1);
  const Ticket ticket = swap_out(a_);
  swap_in(ticket, b_);
  await_in(ticket);
  device_->hold(FakeCopyDevice::kOut);
  run();
  expect(b_, 1);
}

TEST_P(SwapRace, ACopyOutIsQueuedBeforeItsSourceIsWritten) {
  device_->hold(kCompute);
  write(a_, 1);
  const Ticket ticket = swap_out(a_);
  run();
  swap_in(ticket, b_);
  expect(b_, 1);
}

TEST_P(SwapRace, ACopyInIsQueuedWhileItsTargetIsStillRead) {
  write(a_, 1);
  write(b_, 2);
  const Ticket ticket = swap_out(a_);
  run();
  device_->hold(kCompute);
  device_->launch(kCompute, [this] { c_ = b_; });
  swap_in(ticket, b_);
  run();
  expect(c_, 2);
}

TEST_P(SwapRace, ATensorIsReadWhileItsCopyInIsLate) {
  write(a_, 1);
  const Ticket ticket = swap_out(a_);
  run();
  device_->hold(FakeCopyDevice::kIn);
  swap_in(ticket, b_);
  await_in(ticket);
  device_->launch(kCompute, [this] { c_ = b_; });
  run();
  expect(c_, 1);
}

TEST_P(SwapRace, HostBytesAreReleasedAndTakenAgainWhileTheirCopyInIsLate) {
  write(a_, 1);
  const Ticket first = swap_out(a_);
  run();
  device_->hold(FakeCopyDevice::kIn);
  swap_in(first, b_);
  await_in(first);
  EXPECT_TRUE(swap_->release(first).ok());
  Tensor other;
  other.fill(2);
  const Ticket second = swap_out(other);  // takes the same place, and waits for nothing else
  device_->hold(kCompute);
  run();
  EXPECT_EQ(swap_->stats().peak_live, Places::occupied(kBytes));
  expect(b_, 1);
  EXPECT_TRUE(swap_->release(second).ok());
}

INSTANTIATE_TEST_SUITE_P(Waits, SwapRace, testing::Values(false, true),
                         [](const auto& waits) { return waits.param ? "AreIgnored" : "AreKept"; });

}  // namespace
}  // namespace ebbtide
