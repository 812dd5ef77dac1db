// What rounds are served behind something that was not as before: an unlike round, an output that was kept, memory that ended.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/unit/runtime/simulated_adaptor.h"

namespace ebbtide::simulation {
namespace {

Bytes mib(std::int64_t count) { return Bytes{count * kMiB.value}; }

// A forward of 12 tensors of one size, with others of any size between that pass, and a step.
void iterate(SimulatedAdaptor& adaptor, int others) {
  Engine& engine = adaptor.engine();
  engine.settle();
  engine.mark(MarkKind::kForward, 1);
  std::vector<TensorId> tensors;
  for (int i = 0; i < 12; ++i) {
    tensors.push_back(adaptor.allocate(mib(64)));
    if (others == 0 || i % 3 != others % 3) continue;
    adaptor.free(adaptor.allocate(Bytes{((others * 7919 + i * 104729) % 200000 + 3000) * 512}));
  }
  free_all(adaptor, tensors);
  engine.settle();
  engine.mark(MarkKind::kOptimizer, 2);
  adaptor.free(adaptor.allocate(mib(7)));
}

std::int64_t planned(SimulatedAdaptor& adaptor) { return adaptor.engine().snapshot().counters.planned.requests; }

// Merged with unlike ones they make a fiction, which nothing follows: all the same they are learnt from, until what is missing
// in them is forgotten.
TEST(Recovery, RoundsThatRepeatAgainAreServedAsPlannedAgain) {
  for (const int unlike : {1, 4, 24}) {
    SimulatedAdaptor adaptor;
    for (int i = 0; i < 3; ++i) iterate(adaptor, 0);
    for (int i = 1; i <= unlike; ++i) iterate(adaptor, i);
    for (int i = 0; i < 400; ++i) iterate(adaptor, 0);
    const std::int64_t before = planned(adaptor);
    iterate(adaptor, 0);
    EXPECT_EQ(planned(adaptor) - before, 13) << "behind " << unlike;
    expect_no_fault(adaptor);
  }
}

// The loop keeps the output of a round until the next one has begun. A round that is learnt before the next one begins tells what
// it is; as something unknown it would be planned around as if it stayed.
TEST(Recovery, AnOutputThatIsKeptForAWhileIsKnownInTheNextRound) {
  SimulatedAdaptor adaptor;
  std::vector<TensorId> output;
  const auto iterate_with = [&](std::int64_t batch, std::int64_t length) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1, {batch, length});
    const auto tensor = [&](std::int64_t parts) { return adaptor.allocate(Bytes{parts * batch * length * 1024}); };
    std::vector<TensorId> tensors;
    for (const std::int64_t parts : {4, 5, 6}) tensors.push_back(tensor(parts));
    free_all(adaptor, output);
    for (std::int64_t i = 0; i < 8; ++i) tensors.push_back(tensor(8 + i));
    output = {tensor(20)};
    free_all(adaptor, tensors);
  };
  for (int i = 0; i < 4; ++i) iterate_with(1, 4001);
  for (int i = 0; i < 2; ++i) iterate_with(4, 5003);
  const Bytes needed{(4 + 5 + 6 + 8 * 8 + 28 + 20) * 4 * 5003 * std::int64_t{1024}};
  EXPECT_LT(adaptor.engine().snapshot().peak_arena, Bytes{needed.value + needed.value / 16});
  free_all(adaptor, output);
  expect_no_fault(adaptor);
}

// Its place was planned, and there is no memory behind it: the round did not have it.
TEST(Recovery, APlannedRequestThatMemoryEndsAtCountsAsNotPlanned) {
  SimulatedAdaptor adaptor;
  const auto begin = [&](int count) {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1);
    std::vector<TensorId> tensors;
    for (int i = 0; i < count; ++i) tensors.push_back(adaptor.allocate(mib(64)));
    return tensors;
  };
  for (int i = 0; i < 3; ++i) free_all(adaptor, begin(8));
  adaptor.engine().mark(MarkKind::kForward, 1);
  adaptor.engine().release_idle();
  adaptor.range().set_capacity(mib(7 * 64));
  const std::vector<TensorId> tensors = begin(7);
  adaptor.fail_to_allocate(mib(64));
  EXPECT_TRUE(adaptor.engine().is_valid()) << "more was planned than asked for";
  free_all(adaptor, tensors);
  expect_no_fault(adaptor);
}

// Half of each round goes upstream, for as long as others hold the device's memory.
TEST(Recovery, RoundsThatMemoryEndsInArePlannedAsSoonAsThereIsSomeAgain) {
  SimulatedAdaptor adaptor;
  const auto run = [&] {
    adaptor.engine().settle();
    adaptor.engine().mark(MarkKind::kForward, 1);
    std::vector<TensorId> tensors;
    for (int i = 0; i < 8; ++i) tensors.push_back(adaptor.allocate(mib(64)));
    free_all(adaptor, tensors);
  };
  for (int i = 0; i < 3; ++i) run();
  adaptor.engine().mark(MarkKind::kForward, 1);
  adaptor.engine().release_idle();
  adaptor.range().set_capacity(mib(4 * 64));
  for (int i = 0; i < 10; ++i) run();
  adaptor.range().set_capacity(kGiB);
  const std::int64_t before = planned(adaptor);
  run();
  EXPECT_EQ(planned(adaptor) - before, 8);
  expect_no_fault(adaptor);
}

}  // namespace
}  // namespace ebbtide::simulation
