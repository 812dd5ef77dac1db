// The engine at its edges: memory that cannot grow, memory given back, streams, strangers.
#include "allocator/runtime/engine.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/runtime/simulated_adaptor.h"

namespace ebbtide::simulation {
namespace {

constexpr Bytes kSize{16 * kMiB.value};

// `count` tensors of one size, all alive at once, then gone.
std::vector<TensorId> begin_step(SimulatedAdaptor& adaptor, int count) {
  adaptor.engine().settle();
  adaptor.engine().mark(MarkKind::kUser, 0);
  std::vector<TensorId> tensors;
  for (int i = 0; i < count; ++i) tensors.push_back(adaptor.allocate(kSize));
  return tensors;
}

void learn(SimulatedAdaptor& adaptor, int count) {
  for (int i = 0; i < 3; ++i) free_all(adaptor, begin_step(adaptor, count));
}

TEST(Engine, ServesRoundsFromTheArenaAsSoonAsThereAreAny) {
  SimulatedAdaptor adaptor;
  free_all(adaptor, begin_step(adaptor, 4));
  EXPECT_EQ(adaptor.range().extent(), Bytes{4 * kSize.value});
  EXPECT_EQ(adaptor.engine().snapshot().counters.planned.requests, 0);
  const std::vector<TensorId> tensors = begin_step(adaptor, 4);
  EXPECT_EQ(adaptor.arena_live(), Bytes{4 * kSize.value});
  EXPECT_EQ(adaptor.range().extent(), Bytes{4 * kSize.value});
  EXPECT_EQ(adaptor.engine().snapshot().counters.planned.requests, 4);
  free_all(adaptor, tensors);
  expect_no_fault(adaptor);
}

// It creates its state, and uses as much for a moment: both would stand beside an idle arena.
TEST(Engine, TheArenaIsGivenBackBeforeAnOptimizersFirstStep) {
  SimulatedAdaptor adaptor;
  const auto iterate = [&] {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1);
    std::vector<TensorId> tensors;
    for (int i = 0; i < 8; ++i) tensors.push_back(adaptor.allocate(Bytes{64 * kMiB.value}));
    free_all(adaptor, tensors);
    adaptor.engine().mark(MarkKind::kOptimizer, 2);
    const Bytes extent = adaptor.range().extent();
    adaptor.free(adaptor.allocate(kSize));
    return extent;
  };
  EXPECT_EQ(iterate(), Bytes{});
  EXPECT_EQ(iterate(), Bytes{8 * 64 * kMiB.value}) << "later steps find it as it is";
  expect_no_fault(adaptor);
}

// A variable of the training loop holds logits.
TEST(Engine, AnOptimizersStateIsPlacedInAnArenaThatCannotBeGivenBack) {
  SimulatedAdaptor adaptor;
  adaptor.engine().mark(MarkKind::kForward, 1);
  std::vector<TensorId> tensors;
  for (int i = 0; i < 8; ++i) tensors.push_back(adaptor.allocate(Bytes{64 * kMiB.value}));
  const TensorId kept = tensors.back();
  tensors.pop_back();
  free_all(adaptor, tensors);
  adaptor.engine().mark(MarkKind::kOptimizer, 2);
  const Counters before = adaptor.engine().snapshot().counters;
  tensors.clear();
  for (int i = 0; i < 10; ++i) tensors.push_back(adaptor.allocate(Bytes{64 * kMiB.value}));
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_EQ(after.gap.requests - before.gap.requests, 7);
  EXPECT_EQ(adaptor.range().extent(), Bytes{8 * 64 * kMiB.value}) << "it does not grow for what stays";
  tensors.push_back(kept);
  free_all(adaptor, tensors);
  expect_no_fault(adaptor);
}

TEST(Engine, PlansGoRoundAnOptimizersStateInTheArena) {
  SimulatedAdaptor adaptor;
  Engine& engine = adaptor.engine();
  const auto forward = [&](std::size_t kept) {
    engine.settle();
    engine.mark(MarkKind::kForward, 1);
    std::vector<TensorId> tensors;
    for (int i = 0; i < 8; ++i) tensors.push_back(adaptor.allocate(Bytes{64 * kMiB.value}));
    const std::vector<TensorId> last(tensors.end() - static_cast<std::ptrdiff_t>(kept), tensors.end());
    tensors.resize(tensors.size() - kept);
    free_all(adaptor, tensors);
    return last;
  };
  const std::vector<TensorId> logits = forward(1);
  engine.settle();
  engine.mark(MarkKind::kOptimizer, 2);
  std::vector<TensorId> states;
  for (int i = 0; i < 3; ++i) states.push_back(adaptor.allocate(Bytes{32 * kMiB.value}));
  engine.mark(MarkKind::kOptimizerEnd, 0);
  free_all(adaptor, logits);
  forward(0);  // the arena grows
  engine.mark(MarkKind::kOptimizer, 2);
  const Counters before = engine.snapshot().counters;
  forward(0);
  engine.mark(MarkKind::kOptimizer, 2);
  const Counters after = engine.snapshot().counters;
  EXPECT_EQ(after.inline_plans, before.inline_plans) << "none is made anew";
  EXPECT_EQ(after.planned.requests - before.planned.requests, 8);
  free_all(adaptor, states);
  expect_no_fault(adaptor);
}

// A forward, and a step that creates so many states.
std::vector<TensorId> iterate(SimulatedAdaptor& adaptor, int states) {
  adaptor.engine().settle();
  adaptor.engine().mark(MarkKind::kForward, 1);
  std::vector<TensorId> tensors;
  for (int i = 0; i < 8; ++i) tensors.push_back(adaptor.allocate(Bytes{64 * kMiB.value}));
  free_all(adaptor, tensors);
  adaptor.engine().settle();
  adaptor.engine().mark(MarkKind::kOptimizer, 2);
  tensors.clear();
  for (int i = 0; i < states; ++i) tensors.push_back(adaptor.allocate(Bytes{16 * kMiB.value}));
  adaptor.free(adaptor.allocate(Bytes{48 * kMiB.value}));
  adaptor.engine().mark(MarkKind::kOptimizerEnd, 0);
  return tensors;
}

// Of layers that are trained from then on.
TEST(Engine, StateThatComesLaterIsPlacedInWhatIsIdleOfTheArena) {
  SimulatedAdaptor adaptor;
  for (int i = 0; i < 4; ++i) iterate(adaptor, 0);
  const Bytes extent = adaptor.range().extent();
  const Counters before = adaptor.engine().snapshot().counters;
  const std::vector<TensorId> states = iterate(adaptor, 3);
  EXPECT_EQ(adaptor.engine().snapshot().counters.gap.requests - before.gap.requests, 3);
  EXPECT_EQ(adaptor.range().extent(), extent);
  for (int i = 0; i < 4; ++i) iterate(adaptor, 0);
  const Counters settled = adaptor.engine().snapshot().counters;
  for (int i = 0; i < 3; ++i) iterate(adaptor, 0);
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_EQ(after.inline_plans, settled.inline_plans) << "plans know of it by now";
  EXPECT_EQ(after.planned.requests - settled.planned.requests, 3 * 9);
  free_all(adaptor, states);
  expect_no_fault(adaptor);
}

// Such an arena is taken anew for a larger plan, which what stays would keep it from.
TEST(Engine, StateThatComesLaterIsUpstreamsWhereTheArenaCannotGrow) {
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.range.grows_in_place = false;
  SimulatedAdaptor adaptor(options);
  for (int i = 0; i < 4; ++i) iterate(adaptor, 0);
  free_all(adaptor, iterate(adaptor, 3));
  EXPECT_EQ(adaptor.engine().snapshot().counters.gap.requests, 0);
  expect_no_fault(adaptor);
}

TEST(Engine, WhatComesBeforeTheFirstMarkIsNeverPlanned) {
  SimulatedAdaptor adaptor;
  for (int i = 0; i < 8; ++i) adaptor.free(adaptor.allocate(kSize));
  const Counters counters = adaptor.engine().snapshot().counters;
  EXPECT_EQ(counters.unplanned.requests, 8);
  EXPECT_EQ(counters.rounds, 0);
  expect_no_fault(adaptor);
}

// Of a step without a plan; what pins no part of a segment that was full of activations is kept apart.
TEST(Engine, GradientsThatUpstreamMustHoldLieWithWhatLasts) {
  SimulatedAdaptor adaptor;
  Engine& engine = adaptor.engine();
  const TensorId parameter = adaptor.allocate(kSize);
  const Bytes other{3 * kSize.value};
  const auto lasts = [&](Bytes size, bool backward) {
    in_backward = backward;
    const Engine::Grant grant = engine.allocate(size, {});
    in_backward = false;
    if (!engine.deallocate(grant.address)) engine.note_refused(size, grant);
    return grant.is_lasting;
  };
  engine.mark(MarkKind::kForward, 1);
  EXPECT_FALSE(lasts(kSize, false)) << "an activation";
  EXPECT_FALSE(lasts(other, true)) << "no parameter has this size";
  EXPECT_TRUE(lasts(kSize, true));
  adaptor.free(adaptor.allocate(other));
  engine.mark(MarkKind::kOptimizer, 2);
  EXPECT_TRUE(lasts(other, false)) << "optimizer state";
  engine.settle();
  engine.mark(MarkKind::kForward, 1);
  EXPECT_FALSE(lasts(kSize, true)) << "such rounds are known";
  adaptor.free(parameter);
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
}

TEST(Engine, SmallRequestsAreCountedAndLeftToUpstream) {
  SimulatedAdaptor adaptor;
  learn(adaptor, 2);
  adaptor.engine().mark(MarkKind::kUser, 0);
  const Counters before = adaptor.engine().snapshot().counters;
  EXPECT_FALSE(adaptor.engine().wants(Bytes{4095}));
  EXPECT_TRUE(adaptor.engine().wants(Bytes{4096}));
  adaptor.free(adaptor.allocate(Bytes{4095}));
  const Counters after = adaptor.engine().snapshot().counters;
  EXPECT_EQ(after.small.requests - before.small.requests, 1);
  EXPECT_EQ(after.all.requests, before.all.requests);
  expect_no_fault(adaptor);
}

TEST(Engine, AFailedGrowthSendsTheRequestUpstreamAndLosesNothing) {
  SimulatedAdaptor adaptor;
  free_all(adaptor, begin_step(adaptor, 4));
  adaptor.engine().release_idle();
  adaptor.range().set_capacity(Bytes{2 * kSize.value});
  const std::vector<TensorId> tensors = begin_step(adaptor, 4);
  EXPECT_EQ(adaptor.arena_live(), Bytes{2 * kSize.value});
  const Counters counters = adaptor.engine().snapshot().counters;
  EXPECT_GE(counters.divergences[static_cast<std::size_t>(Divergence::kNoMemory)], 1);
  free_all(adaptor, tensors);
  adaptor.range().set_capacity(kGiB);
  const std::vector<TensorId> again = begin_step(adaptor, 4);
  EXPECT_EQ(adaptor.arena_live(), Bytes{4 * kSize.value});
  free_all(adaptor, again);
  expect_no_fault(adaptor);
}

TEST(Engine, WhatUpstreamCannotServeTakesAPlaceThatThePlanStillNeeds) {
  SimulatedAdaptor adaptor;
  for (int round = 0; round < 2; ++round) free_all(adaptor, begin_step(adaptor, 4));
  adaptor.range().set_capacity(Bytes{4 * kSize.value});
  Engine& engine = adaptor.engine();
  engine.mark(MarkKind::kUser, 0);
  const Bytes size{3 * kSize.value};
  const Engine::Grant refused = engine.allocate(size, {});
  ASSERT_EQ(refused.address, nullptr) << "the plan for it needs more than there is";
  void* address = engine.allocate_anywhere(size, {}, refused);
  ASSERT_NE(address, nullptr);
  EXPECT_TRUE(engine.owns(address));
  EXPECT_EQ(engine.block_at(address).size, size);
  EXPECT_EQ(engine.allocate_anywhere(size, {}, refused), nullptr) << "there is no such place left";
  EXPECT_TRUE(engine.is_valid());
  EXPECT_TRUE(engine.deallocate(address));
  EXPECT_EQ(engine.snapshot().arena_live, Bytes{});
}

// To ask torch takes a while: as long as a round does what its program says it is asked where that has the backward.
TEST(Engine, WhetherItIsABackwardIsAskedWhereOneMayBegin) {
  static int asked = 0;
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.engine.is_in_backward = [] { return ++asked, in_backward; };
  SimulatedAdaptor adaptor(options);
  const auto asked_in_round = [&](int forwards) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 0);
    const int before = asked;
    std::vector<TensorId> kept;
    for (int i = 0; i < forwards; ++i) kept.push_back(adaptor.allocate(Bytes{(i + 1) * kSize.value}));
    in_backward = true;
    for (int i = 0; i < 4; ++i) adaptor.free(adaptor.allocate(Bytes{(i + 9) * kSize.value}));
    in_backward = false;
    free_all(adaptor, kept);
    return asked - before;
  };
  EXPECT_EQ(asked_in_round(5), 5 + 1) << "nothing is known";
  asked_in_round(5);
  EXPECT_EQ(asked_in_round(5), 1);
  EXPECT_EQ(asked_in_round(3), 1) << "the first request of an early backward shows that it has begun, and the next one is asked for";
  expect_no_fault(adaptor);
}

// A step in which never more than four sizes are alive, and whose tensors no plan can place below five.
void run_fragmented(SimulatedAdaptor& adaptor) {
  struct Lifetime {
    std::int64_t sizes;
    int birth, death;
  };
  constexpr Lifetime kStep[] = {{2, 0, 1}, {2, 0, 2}, {1, 1, 3}, {1, 1, 4}, {1, 2, 3}, {1, 2, 4}, {2, 3, 5}, {2, 4, 5}};
  adaptor.engine().settle();
  adaptor.engine().mark(MarkKind::kUser, 0);
  std::multimap<int, TensorId> dying;
  for (int now = 0; now <= 5; ++now) {
    const auto [first, last] = dying.equal_range(now);
    for (auto tensor = first; tensor != last; ++tensor) adaptor.free(tensor->second);
    for (const Lifetime& tensor : kStep) {
      if (tensor.birth == now) dying.emplace(tensor.death, adaptor.allocate(Bytes{tensor.sizes * kSize.value}));
    }
  }
}

Engine::StepPlan plan_of_fragmented_step(SimulatedAdaptor& adaptor, Bytes capacity) {
  adaptor.range().set_capacity(capacity);
  EXPECT_EQ(adaptor.engine().step_plan().height, Bytes{});
  for (int step = 0; step < 3; ++step) run_fragmented(adaptor);
  adaptor.engine().mark(MarkKind::kUser, 0);
  EXPECT_EQ(adaptor.engine().snapshot().plan_lower_bound, Bytes{4 * kSize.value});
  return adaptor.engine().step_plan();
}

TEST(Engine, AStepWhoseBytesFitIsToldThatItsAddressesDoNot) {
  SimulatedAdaptor adaptor;
  const Engine::StepPlan plan = plan_of_fragmented_step(adaptor, Bytes{4 * kSize.value});
  EXPECT_EQ(plan.budget, Bytes{4 * kSize.value});
  EXPECT_EQ(plan.height, Bytes{5 * kSize.value});
  EXPECT_FALSE(plan.fits());
  expect_no_fault(adaptor);
}

TEST(Engine, AStepWhosePlanFitsIsToldItsHeight) {
  SimulatedAdaptor adaptor;
  const Engine::StepPlan plan = plan_of_fragmented_step(adaptor, Bytes{5 * kSize.value});
  EXPECT_EQ(plan.height, Bytes{5 * kSize.value});
  EXPECT_TRUE(plan.fits());
  expect_no_fault(adaptor);
}

TEST(Engine, EveryFailureOfTheRangeInTurnIsSurvived) {
  for (int n = 1; n <= 12; ++n) {
    SimulatedAdaptor adaptor;
    free_all(adaptor, begin_step(adaptor, 4));
    adaptor.range().fail_extend(n);
    for (int round = 0; round < 3; ++round) free_all(adaptor, begin_step(adaptor, 4));
    expect_no_fault(adaptor);
    EXPECT_EQ(adaptor.arena_live(), Bytes{}) << "failure " << n;
  }
}

TEST(Engine, IdleMemoryIsGivenBackDownToTheHighestLiveBlock) {
  SimulatedAdaptor adaptor;
  learn(adaptor, 4);
  const std::vector<TensorId> tensors = begin_step(adaptor, 4);
  EXPECT_EQ(adaptor.engine().release_idle(), Bytes{});
  free_all(adaptor, tensors);
  const Bytes held = adaptor.range().extent();
  EXPECT_EQ(adaptor.engine().release_idle(), held);
  EXPECT_EQ(adaptor.range().extent(), Bytes{});
  free_all(adaptor, begin_step(adaptor, 4));
  EXPECT_EQ(adaptor.range().extent(), held);
  expect_no_fault(adaptor);
}

// While memory is given back no lock is held: a request that comes then must not be answered with
// bytes that are about to go.
TEST(Engine, ARequestDuringReleaseIdleNeverGetsMemoryThatIsGivenBack) {
  SimulatedAdaptor adaptor;
  learn(adaptor, 4);
  adaptor.engine().settle();
  adaptor.engine().mark(MarkKind::kUser, 0);
  adaptor.begin_threads();
  std::thread other;
  TensorId tensor = 0;
  adaptor.range().during_shrink = [&] {
    std::promise<void> served;
    std::future<void> answer = served.get_future();
    other = std::thread([&adaptor, &tensor, done = std::move(served)]() mutable {
      tensor = adaptor.allocate(kSize);
      done.set_value();
    });
    // An engine that knows better makes the request wait until the memory is gone.
    answer.wait_for(std::chrono::milliseconds(100));
  };
  static_cast<void>(adaptor.engine().release_idle());
  adaptor.range().during_shrink = nullptr;
  other.join();
  adaptor.end_threads();
  EXPECT_GE(adaptor.range().extent(), adaptor.arena_live()) << "a live block lies in memory that was given back";
  adaptor.free(tensor);
  expect_no_fault(adaptor);
}

TEST(Engine, ABlockUsedOnAnotherStreamIsWaitedForByItsSuccessor) {
  SimulatedAdaptor adaptor;
  learn(adaptor, 2);
  std::vector<TensorId> tensors = begin_step(adaptor, 2);
  adaptor.use_on(tensors[1], StreamId{7});
  adaptor.use_on(tensors[1], StreamId{7});
  EXPECT_TRUE(adaptor.fences().log().empty());
  free_all(adaptor, tensors);
  EXPECT_EQ(adaptor.fences().log(), (std::vector<std::string>{"record 1 on 7"}));
  free_all(adaptor, begin_step(adaptor, 2));
  EXPECT_EQ(adaptor.fences().log(), (std::vector<std::string>{"record 1 on 7", "wait 1 on 0"}));
  EXPECT_EQ(adaptor.fences().outstanding(), 0U);
  expect_no_fault(adaptor);
}

TEST(Engine, RequestsOfOtherStreamsAreLeftToUpstream) {
  SimulatedAdaptor adaptor;
  learn(adaptor, 2);
  const std::vector<TensorId> tensors = begin_step(adaptor, 1);
  const Bytes live = adaptor.arena_live();
  const TensorId other = adaptor.allocate(kSize, StreamId{9});
  EXPECT_EQ(adaptor.arena_live(), live);
  EXPECT_EQ(adaptor.engine().home(), StreamId{});
  adaptor.free(other);
  free_all(adaptor, tensors);
  expect_no_fault(adaptor);
}

TEST(Engine, AnAddressThatIsNoBlockIsRefusedAndNothingChanges) {
  SimulatedAdaptor adaptor;
  learn(adaptor, 2);
  const std::vector<TensorId> tensors = begin_step(adaptor, 2);
  auto* const base = static_cast<char*>(adaptor.range().base());
  EXPECT_FALSE(adaptor.engine().deallocate(base + 512));
  EXPECT_FALSE(adaptor.engine().record_stream(base - 512, StreamId{7}));
  EXPECT_EQ(adaptor.engine().block_at(base - 512).begin, nullptr);
  EXPECT_EQ(adaptor.engine().block_at(base + 512).begin, base);
  EXPECT_EQ(adaptor.engine().block_at(base + 512).size, kSize);
  adaptor.engine().forget_upstream(base - 512);
  free_all(adaptor, tensors);
  expect_no_fault(adaptor);
}

TEST(Engine, PeakLiveCanBeStartedOver) {
  SimulatedAdaptor adaptor;
  free_all(adaptor, begin_step(adaptor, 4));
  EXPECT_EQ(adaptor.engine().snapshot().counters.peak_live, Bytes{4 * kSize.value});
  const std::vector<TensorId> tensors = begin_step(adaptor, 1);
  adaptor.engine().reset_peak_live();
  EXPECT_EQ(adaptor.engine().snapshot().counters.peak_live, kSize);
  free_all(adaptor, tensors);
  expect_no_fault(adaptor);
}

// Collects what the engine reports.
class Events final : public EventSink {
 public:
  void record(const EventRecord& event) noexcept override { events.push_back(event); }
  std::size_t count(Action action) const {
    std::size_t n = 0;
    for (const EventRecord& event : events) n += event.action == action ? 1U : 0U;
    return n;
  }
  std::vector<EventRecord> events;
};

TEST(Engine, EveryAllocationAndFreeBecomesOneEventWithItsAddress) {
  Events events;
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.engine.sink = &events;
  options.engine.device = 2;
  SimulatedAdaptor adaptor(options);
  learn(adaptor, 3);
  EXPECT_EQ(events.count(Action::kAllocate), 9U);
  EXPECT_EQ(events.count(Action::kFree), 9U);
  EXPECT_EQ(events.count(Action::kMark), 3U);
  std::map<std::uint64_t, std::int64_t> live;
  for (const EventRecord& event : events.events) {
    EXPECT_EQ(event.device, 2);
    if (event.action == Action::kAllocate) {
      EXPECT_TRUE(live.emplace(event.address, event.bytes).second);
    } else if (event.action == Action::kFree) {
      EXPECT_EQ(live[event.address], event.bytes);
      live.erase(event.address);
    }
  }
  EXPECT_TRUE(live.empty());
  expect_no_fault(adaptor);
}

TEST(Engine, AfterAForkTheChildServesNothingAndItsFreesStillWork) {
  SimulatedAdaptor adaptor;
  learn(adaptor, 2);
  const std::vector<TensorId> tensors = begin_step(adaptor, 2);
  adaptor.engine().before_fork();
  const pid_t child = ::fork();
  if (child == 0) {
    adaptor.engine().after_fork_child();
    const bool serves = adaptor.engine().allocate(kSize, StreamId{}).address != nullptr;
    free_all(adaptor, tensors);
    ::_exit(!serves && adaptor.arena_live() == Bytes{} && !adaptor.first_fault() ? 0 : 1);
  }
  adaptor.engine().after_fork_parent();
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  free_all(adaptor, tensors);
  free_all(adaptor, begin_step(adaptor, 2));
  expect_no_fault(adaptor);
}

}  // namespace
}  // namespace ebbtide::simulation
