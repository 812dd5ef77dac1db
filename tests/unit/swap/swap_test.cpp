#include "swap/swap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "allocator/device/host_copy_device.h"
#include "tests/fakes/fake_copy_device.h"

namespace ebbtide {
namespace {

using fakes::FakeCopyDevice;
using fakes::kCompute;

class SwapTest : public testing::Test {
 protected:
  void open(Bytes budget, FakeCopyDevice::Options options = {}) {
    auto device = std::make_unique<FakeCopyDevice>(options);
    device_ = device.get();
    swap_ = Swap::open(std::move(device), {.host_budget = budget}).value();
  }
  static std::vector<std::uint8_t> bytes(std::size_t count, unsigned first = 0) {
    std::vector<std::uint8_t> made(count);
    std::iota(made.begin(), made.end(), static_cast<std::uint8_t>(first));
    return made;
  }
  Result<Ticket> swap_out(const std::vector<std::uint8_t>& source) {
    return swap_->swap_out(std::array{SwapSource{source.data(), size(source)}}, kCompute);
  }
  // The source lives as long as the test.
  Result<Ticket> swap_out(std::vector<std::uint8_t>&& source) {
    return swap_out(kept_.emplace_back(std::move(source)));
  }
  Status swap_in(Ticket ticket, std::vector<std::uint8_t>& target, Offset from = Offset{0}) {
    const Status queued = swap_->swap_in(ticket, from, target.data(), size(target), kCompute);
    return queued.ok() ? swap_->await_in(ticket, kCompute) : queued;
  }
  static Bytes size(const std::vector<std::uint8_t>& of) {
    return {static_cast<std::int64_t>(of.size())};
  }

  // What the log was told, of one action.
  struct Trace final : EventSink {
    std::vector<EventRecord> events;
    void record(const EventRecord& event) noexcept override { events.push_back(event); }
    std::vector<EventRecord> of(Action action) const {
      std::vector<EventRecord> found;
      std::ranges::copy_if(events, std::back_inserter(found), [&](const EventRecord& e) { return e.action == action; });
      return found;
    }
  };

  std::deque<std::vector<std::uint8_t>> kept_;
  FakeCopyDevice* device_ = nullptr;
  std::unique_ptr<Swap> swap_;
};

TEST_F(SwapTest, BytesGoOutAndComeBackWholeOrInPart) {
  open(kMiB);
  const auto source = bytes(3000);
  const Ticket ticket = swap_out(source).value();
  std::vector<std::uint8_t> whole(3000), part(500);
  ASSERT_TRUE(swap_in(ticket, whole).ok());
  ASSERT_TRUE(swap_in(ticket, part, Offset{1000}).ok());
  device_->finish();
  EXPECT_EQ(whole, source);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), source.begin() + 1000));
}

TEST_F(SwapTest, ManySourcesUnderOneTicketLieOneAfterTheOther) {
  open(kGiB);
  const std::vector<std::vector<std::uint8_t>> sources{bytes(100), bytes(512, 3), bytes(3 << 20, 9),
                                                       bytes(1, 77)};
  std::vector<SwapSource> list;
  for (const auto& source : sources) list.push_back({source.data(), size(source)});
  const Ticket ticket = swap_->swap_out(list, kCompute).value();
  Offset from{0};
  for (const auto& source : sources) {
    std::vector<std::uint8_t> target(source.size());
    ASSERT_TRUE(swap_in(ticket, target, from).ok());
    device_->finish();
    EXPECT_EQ(target, source);
    from = from + Places::occupied(size(source));
  }
  const SwapStats stats = swap_->stats();
  EXPECT_EQ(stats.copies_out, 4);
  EXPECT_EQ(stats.swapped_out, Bytes{100 + 512 + (3 << 20) + 1});
  EXPECT_EQ(stats.live.value, from.value);
}

TEST_F(SwapTest, AnEmptySourceAmongOthersIsRefused) {
  open(kMiB);
  const auto source = bytes(100);
  EXPECT_EQ(swap_
                ->swap_out(std::array{SwapSource{source.data(), Bytes{100}},
                                      SwapSource{source.data(), Bytes{0}}},
                           kCompute)
                .error()
                .code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(swap_->swap_out({}, kCompute).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(SwapTest, ATicketAcrossRegistrationsIsCopiedInParts) {
  open(kGiB);
  const auto small = bytes(1000), large = bytes(3 << 20, 5);
  const Ticket first = swap_out(small).value();
  const Ticket second = swap_out(large).value();
  EXPECT_EQ(swap_->stats().growths, 2);
  std::vector<std::uint8_t> back(large.size()), back_small(small.size());
  ASSERT_TRUE(swap_in(second, back).ok());
  ASSERT_TRUE(swap_in(first, back_small).ok());
  device_->finish();
  EXPECT_EQ(back, large);
  EXPECT_EQ(back_small, small);
}

TEST_F(SwapTest, TheBudgetHoldsFromTheFirstTicketOn) {
  open(Bytes{4096});
  const auto half = bytes(2048);
  const Ticket first = swap_out(half).value();
  ASSERT_TRUE(swap_out(half).ok());
  const Result<Ticket> third = swap_out(half);
  ASSERT_FALSE(third.ok());
  EXPECT_EQ(third.error().code, ErrorCode::kOutOfHostMemory);
  EXPECT_NE(third.error().message.find("host budget of 4.00 KiB"), std::string::npos)
      << third.error().message;
  EXPECT_EQ(swap_->room(kMiB), Bytes{0});
  ASSERT_TRUE(swap_->release(first).ok());
  EXPECT_EQ(swap_->room(kMiB), Bytes{2048});
  EXPECT_TRUE(swap_out(half).ok());
  const SwapStats stats = swap_->stats();
  EXPECT_EQ(stats.refusals, 1);
  EXPECT_EQ(stats.peak_live, Bytes{4096});
  EXPECT_LE(stats.slab, Bytes{4096});
  EXPECT_EQ(stats.host_waits, 0);
}

TEST_F(SwapTest, WhenTheSystemPinsLessThanTheBudgetLessIsSwapped) {
  open(Bytes{512 * kMiB.value}, {.pinnable = Bytes{13 * kMiB.value}});
  const auto source = bytes(8 << 20);
  ASSERT_TRUE(swap_out(source).ok());
  EXPECT_EQ(swap_out(source).error().code, ErrorCode::kOutOfHostMemory);
  // What is left of the granted bytes is still used, and nobody is asked again.
  const int pins = device_->pins();
  const Bytes room = swap_->room(size(source));
  EXPECT_EQ(room, Bytes{4 * kMiB.value});
  EXPECT_TRUE(swap_out(bytes(static_cast<std::size_t>(room.value))).ok());
  EXPECT_EQ(device_->pins(), pins);
  EXPECT_TRUE(swap_->is_valid());
}

TEST_F(SwapTest, ReservedMemoryIsPinnedAtOnceAndNotAgain) {
  open(kGiB);
  ASSERT_TRUE(swap_->reserve(Bytes{64 * kMiB.value}).ok());
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(swap_out(bytes(1 << 20)).ok());
  EXPECT_EQ(swap_->stats().growths, 1);
  EXPECT_EQ(swap_->reserve(kGiB + Bytes{1}).error().code, ErrorCode::kOutOfHostMemory);
}

TEST_F(SwapTest, RoundsThatRepeatAreServedFromAPlanThatIsNoHigherThanItMustBe) {
  open(kMiB, {.most_steps_per_call = 9});
  // Every second one dies first: first fit alone would need more.
  for (int round = 0; round < 20; ++round) {
    std::vector<Ticket> tickets;
    for (unsigned i = 0; i < 8; ++i) {
      tickets.push_back(swap_out(bytes(512 * (1 + i % 3))).value());
      if (i % 2 == 0) continue;
      ASSERT_TRUE(swap_->release(tickets[i - 1]).ok());
    }
    for (unsigned i = 1; i < 8; i += 2) ASSERT_TRUE(swap_->release(tickets[i]).ok());
    swap_->settle();
  }
  const SwapStats stats = swap_->stats();
  EXPECT_EQ(stats.rounds, 20);
  EXPECT_EQ(stats.planned_tickets, 18 * 8);
  EXPECT_EQ(stats.plan_height, stats.plan_lower_bound);
}

TEST_F(SwapTest, MisuseIsNamedAndChangesNothing) {
  open(kMiB);
  std::vector<std::uint8_t> target(100);
  const Ticket ticket = swap_out(bytes(100)).value();
  EXPECT_EQ(swap_out(bytes(0)).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(swap_in(ticket, target, Offset{1}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(swap_in(ticket, target, Offset{-1}).error().code, ErrorCode::kInvalidArgument);
  ASSERT_TRUE(swap_->release(ticket).ok());
  for (const Status& status : {swap_->release(ticket), swap_->await_out(ticket, kCompute),
                               swap_->await_in(ticket, kCompute), swap_in(ticket, target)}) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(swap_->stats().live, Bytes{0});
}

TEST_F(SwapTest, ABudgetOutOfRangeIsRefused) {
  for (const Bytes budget : {Bytes{-1}, PinnedSlab::kMaxBudget + Bytes{1}}) {
    const auto opened = Swap::open(std::make_unique<HostCopyDevice>(), {.host_budget = budget});
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST_F(SwapTest, ASwapThatCannotOpenLeavesNothing) {
  for (int call = 1; call <= 3; ++call) {
    auto device = std::make_unique<FakeCopyDevice>();
    device->fail_call(call);
    EXPECT_EQ(Swap::open(std::move(device), {.host_budget = kMiB}).error().code,
              ErrorCode::kSystem);
  }
}

// Every call of a round trip fails once, in turn: it is reported, nothing is lost, and the second
// try gives the same bytes.
TEST_F(SwapTest, AFailedCopyReportsAndLosesNothing) {
  const auto source = bytes(3 << 20);
  int failures = 0;
  for (int call = 1; call < 60; ++call) {
    open(kGiB);
    ASSERT_TRUE(swap_out(bytes(1000)).ok());  // so that the next ticket crosses registrations
    device_->fail_call(call);
    Result<Ticket> ticket = swap_out(source);
    if (!ticket.ok()) {
      ++failures;
      EXPECT_EQ(swap_->stats().live, Places::occupied(Bytes{1000})) << "call " << call;
      device_->fail_call(0);
      ticket = swap_out(source);
    }
    ASSERT_TRUE(ticket.ok()) << ticket.error().message;
    ASSERT_TRUE(swap_->await_out(ticket.value(), kCompute).ok());
    std::vector<std::uint8_t> target(source.size());
    if (!swap_in(ticket.value(), target).ok()) {
      ++failures;
      device_->fail_call(0);
      ASSERT_TRUE(swap_in(ticket.value(), target).ok());
    }
    ASSERT_TRUE(swap_->release(ticket.value()).ok());
    device_->finish();
    ASSERT_EQ(target, source) << "call " << call;
    ASSERT_TRUE(swap_->is_valid());
  }
  EXPECT_GT(failures, 10);
}

TEST_F(SwapTest, AfterAFailedCopyOutNothingReadsTheSource) {
  open(kGiB);
  auto source = std::make_unique<std::vector<std::uint8_t>>(bytes(3 << 20));
  ASSERT_TRUE(swap_out(bytes(1000)).ok());
  device_->hold(FakeCopyDevice::kOut);
  // Pin, two events, the order's record and wait, the start, the first part; then the second fails.
  device_->fail_call(8);
  ASSERT_FALSE(swap_out(*source).ok());
  source.reset();
  device_->finish();  // under the address sanitizer, a late copy would be caught here
  EXPECT_EQ(swap_->stats().host_waits, 1);
}

// What a step costs the host: calls of the driver, each a microsecond or two.
TEST_F(SwapTest, BehindTheLatestCopyNoEarlierOneIsWaitedFor) {
  open(kGiB);
  const auto source = bytes(4096);
  std::vector<std::uint8_t> target(source.size());
  const auto calls = [&](const auto& body) {
    const int before = device_->calls();
    body();
    return device_->calls() - before;
  };
  const auto round = [&] {
    std::vector<Ticket> tickets;
    std::vector<int> out, in;
    for (int i = 0; i < 3; ++i)
      out.push_back(calls([&] { tickets.push_back(swap_out(source).value()); }));
    while (!tickets.empty()) {
      in.push_back(calls([&] { EXPECT_TRUE(swap_in(tickets.back(), target).ok()); }));
      device_->finish();
      EXPECT_EQ(calls([&] { EXPECT_TRUE(swap_->release(tickets.back()).ok()); }), 0);
      tickets.pop_back();
    }
    return std::pair(out, in);
  };
  for (int i = 0; i < 30; ++i) round();  // pins, and makes the events
  const auto [out, in] = round();
  EXPECT_EQ(out, (std::vector{out[2] + 2, out[2], out[2]}));  // an event behind all that was released
  EXPECT_EQ(in, (std::vector{in[2] + 1, in[2], in[2]}));      // a wait for the last copy out
}

TEST_F(SwapTest, TicketsAreAwaitedTogetherForThePriceOfOne) {
  open(kGiB);
  const auto source = bytes(4096);
  const auto price = [&](std::size_t count) {
    std::vector<Ticket> tickets;
    for (std::size_t i = 0; i < count; ++i) tickets.push_back(swap_out(source).value());
    std::swap(tickets.front(), tickets.back());
    const int before = device_->calls();
    EXPECT_TRUE(swap_->await_out(tickets, kCompute).ok());
    const int after = device_->calls();
    for (const Ticket ticket : tickets) EXPECT_TRUE(swap_->release(ticket).ok());
    device_->finish();
    static_cast<void>(swap_->stats());  // events return
    return after - before;
  };
  price(3);  // pins, and makes the events
  EXPECT_EQ(price(3), price(1));
  EXPECT_EQ(price(2), 2);  // where the compute stream is now, and its wait
}

TEST_F(SwapTest, NothingIsAwaitedIfOneOfSeveralTicketsIsNotLive) {
  open(kGiB);
  const auto source = bytes(512);
  const Ticket first = swap_out(source).value(), second = swap_out(source).value();
  ASSERT_TRUE(swap_->release(second).ok());
  const int before = device_->calls();
  EXPECT_EQ(swap_->await_out(std::array{first, second}, kCompute).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(swap_->await_out(std::span<const Ticket>(), kCompute).ok());
  EXPECT_EQ(device_->calls(), before);
  device_->finish();  // what is copied lives as long
}

TEST_F(SwapTest, OfTicketsAwaitedTogetherTheTimeOfEachIsExposed) {
  open(kGiB, {.most_steps_per_call = 0});
  const auto source = bytes(512);
  std::vector<Ticket> tickets;
  for (int i = 0; i < 3; ++i) tickets.push_back(swap_out(source).value());
  device_->hold(FakeCopyDevice::kOut);
  tickets.push_back(tickets.front());  // named twice
  ASSERT_TRUE(swap_->await_out(tickets, kCompute).ok());
  tickets.pop_back();
  while (device_->step()) {
  }
  device_->finish();
  for (const Ticket ticket : tickets) ASSERT_TRUE(swap_->release(ticket).ok());
  const SwapStats stats = swap_->stats();
  EXPECT_GT(stats.out.copying_ns, 0);
  EXPECT_EQ(stats.out.exposed_ns, stats.out.copying_ns);
  EXPECT_EQ(stats.host_waits, 0);
}

TEST_F(SwapTest, WhoWaitsForACopyInHasWaitedForThoseBeforeIt) {
  open(kGiB, {.most_steps_per_call = 0});
  const auto source = bytes(512);
  const Ticket first = swap_out(source).value(), second = swap_out(source).value();
  device_->finish();
  std::vector<std::uint8_t> targets[2] = {bytes(512), bytes(512)};
  device_->hold(FakeCopyDevice::kIn);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(swap_->swap_in(i == 0 ? first : second, Offset{0}, targets[i].data(), size(targets[i]), kCompute).ok());
  }
  ASSERT_TRUE(swap_->await_in(second, kCompute).ok());  // what was asked for first is needed later
  while (device_->step()) {
  }
  device_->finish();
  ASSERT_TRUE(swap_->await_in(first, kCompute).ok());
  device_->finish();
  for (const Ticket ticket : {first, second}) ASSERT_TRUE(swap_->release(ticket).ok());
  const SwapStats stats = swap_->stats();
  EXPECT_GT(stats.in.copying_ns, 0);
  EXPECT_EQ(stats.in.exposed_ns, stats.in.copying_ns);
  EXPECT_EQ(stats.in.unmeasured, 0);
}

TEST_F(SwapTest, WhereReleasedBytesCannotBeOrderedTheHostWaits) {
  open(kMiB, {.most_steps_per_call = 0});
  const auto source = bytes(512, 1), other = bytes(512, 2);
  std::vector<std::uint8_t> target(source.size());
  const Ticket first = swap_out(source).value();
  device_->hold(FakeCopyDevice::kIn);
  ASSERT_TRUE(swap_in(first, target).ok());
  ASSERT_TRUE(swap_->release(first).ok());
  device_->fail_call(1);
  ASSERT_TRUE(swap_out(other).ok());  // takes the same place
  EXPECT_EQ(swap_->stats().host_waits, 1);
  device_->finish();
  EXPECT_EQ(target, source);
}

TEST_F(SwapTest, ATraceIsToldWhatIsQueuedAndHowLongItTook) {
  Trace trace;
  auto device = std::make_unique<FakeCopyDevice>();
  device_ = device.get();
  swap_ = Swap::open(std::move(device), {.host_budget = kMiB, .sink = &trace, .device = 3}).value();
  const auto before = std::chrono::steady_clock::now().time_since_epoch();
  const auto source = bytes(3000);
  const Ticket ticket = swap_out(source).value();
  ASSERT_TRUE(swap_->await_out(ticket, kCompute).ok());
  std::vector<std::uint8_t> target(1000);
  ASSERT_TRUE(swap_in(ticket, target).ok());
  ASSERT_TRUE(swap_->release(ticket).ok());
  device_->finish();
  const SwapStats stats = swap_->stats();
  ASSERT_EQ(trace.of(Action::kSwapOut).size(), 1U);
  EXPECT_EQ(trace.of(Action::kSwapOut)[0].address, ticket.value);
  EXPECT_EQ(trace.of(Action::kSwapOut)[0].bytes, 3000);
  EXPECT_EQ(trace.of(Action::kSwapOut)[0].device, 3);
  EXPECT_EQ(trace.of(Action::kSwapIn).at(0).bytes, 1000);
  EXPECT_EQ(trace.of(Action::kSwapRelease).at(0).bytes, 3000);
  EXPECT_EQ(trace.of(Action::kPinned).back().bytes, stats.slab.value);
  const auto copied = trace.of(Action::kSwapCopied);
  ASSERT_EQ(copied.size(), 2U);
  std::int64_t out = 0, in = 0, exposed = 0;
  for (const EventRecord& copy : copied) {
    EXPECT_EQ(copy.address, ticket.value);
    (copy.detail == 1 ? in : out) += copy.bytes;
    exposed += static_cast<std::int64_t>(copy.stream);
    EXPECT_GE(copy.time_ns + 1'000'000'000, static_cast<std::uint64_t>(std::chrono::nanoseconds(before).count()));
  }
  EXPECT_EQ(out, stats.out.copying_ns);
  EXPECT_EQ(in, stats.in.copying_ns);
  EXPECT_EQ(exposed, stats.out.exposed_ns + stats.in.exposed_ns);
  swap_.reset();
  EXPECT_EQ(trace.of(Action::kSwapCopied).size(), 2U);
}

TEST_F(SwapTest, CopiesUnderWayWhenItClosesAreToldOf) {
  Trace trace;
  swap_ = Swap::open(std::make_unique<FakeCopyDevice>(), {.host_budget = kMiB, .sink = &trace}).value();
  const auto source = bytes(512);
  const Ticket ticket = swap_out(source).value();
  ASSERT_TRUE(swap_->await_out(ticket, kCompute).ok());
  ASSERT_TRUE(swap_->release(ticket).ok());
  swap_.reset();
  EXPECT_EQ(trace.of(Action::kSwapCopied).size(), 1U);
}

TEST_F(SwapTest, ClosingWaitsForWhatIsUnderWay) {
  open(kMiB);
  std::vector<std::uint8_t> target(1000);
  const auto source = bytes(1000);
  const Ticket ticket = swap_out(source).value();
  ASSERT_TRUE(swap_in(ticket, target).ok());
  swap_.reset();  // the fake device checks that nothing of its own is left
  EXPECT_EQ(target, source);
}

}  // namespace
}  // namespace ebbtide
