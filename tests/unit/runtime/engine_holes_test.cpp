// Memory that is given back between an arena's blocks, and what is served from then on.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "tests/unit/runtime/simulated_adaptor.h"

namespace ebbtide::simulation {
namespace {

constexpr Bytes kTensor{16 * kMiB.value};

class EngineHoles : public testing::Test {
 protected:
  std::vector<TensorId> begin_step(int count) {
    adaptor_.engine().settle();
    adaptor_.engine().mark(MarkKind::kUser, 0);
    std::vector<TensorId> tensors;
    for (int i = 0; i < count; ++i) tensors.push_back(adaptor_.allocate(kTensor));
    return tensors;
  }

  // A planned round of 8 tensors of which every other one is freed: four places are idle, three of them between blocks.
  std::vector<TensorId> begin_with_gaps() {
    for (int i = 0; i < 3; ++i) free_all(adaptor_, begin_step(8));
    std::vector<TensorId> kept;
    const std::vector<TensorId> tensors = begin_step(8);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (i % 2 == 0) adaptor_.free(tensors[i]);
      if (i % 2 == 1) kept.push_back(tensors[i]);
    }
    return kept;
  }

  Bytes held() { return adaptor_.range().held(); }

  SimulatedAdaptor adaptor_;
};

TEST_F(EngineHoles, AboutAsMuchAsIsWantedIsGivenBack) {
  const std::vector<TensorId> kept = begin_with_gaps();
  EXPECT_EQ(adaptor_.engine().release_inside(Bytes{kTensor.value + 1}), Bytes{kTensor.value + 512});
  EXPECT_EQ(held(), Bytes{8 * kTensor.value - kTensor.value - 512});
  EXPECT_GT(adaptor_.engine().release_inside(kGiB), Bytes{});
  EXPECT_EQ(adaptor_.engine().release_inside(kGiB), Bytes{}) << "all that was idle is gone";
  EXPECT_EQ(adaptor_.engine().snapshot().arena, held());
  free_all(adaptor_, kept);
  expect_no_fault(adaptor_);
}

TEST_F(EngineHoles, APlanThatHasSomethingThereIsServedAsBefore) {
  free_all(adaptor_, begin_with_gaps());
  static_cast<void>(adaptor_.engine().release_inside(kGiB));
  const Counters before = adaptor_.engine().snapshot().counters;
  free_all(adaptor_, begin_step(8));
  EXPECT_EQ(adaptor_.engine().snapshot().counters.planned.requests - before.planned.requests, 8);
  EXPECT_EQ(held(), Bytes{8 * kTensor.value});
  expect_no_fault(adaptor_);
}

TEST_F(EngineHoles, WhatCannotBeFilledGoesUpstreamAndLosesNothing) {
  const std::vector<TensorId> kept = begin_with_gaps();
  static_cast<void>(adaptor_.engine().release_inside(kGiB));
  adaptor_.range().set_capacity(held());
  free_all(adaptor_, kept);
  const std::vector<TensorId> tensors = begin_step(8);
  EXPECT_LT(adaptor_.arena_live(), Bytes{8 * kTensor.value});
  EXPECT_GT(adaptor_.engine().snapshot().counters.divergences[static_cast<std::size_t>(Divergence::kNoMemory)], 0);
  free_all(adaptor_, tensors);
  adaptor_.range().set_capacity(kGiB);
  free_all(adaptor_, begin_step(8));
  EXPECT_EQ(held(), Bytes{8 * kTensor.value}) << "as soon as there is memory again";
  expect_no_fault(adaptor_);
}

TEST_F(EngineHoles, WhatIsNotPlannedStaysClearOfThem) {
  const std::vector<TensorId> kept = begin_with_gaps();
  static_cast<void>(adaptor_.engine().release_inside(kGiB));
  const Bytes before = held();
  std::vector<TensorId> others;
  for (int i = 0; i < 4; ++i) others.push_back(adaptor_.allocate(Bytes{kTensor.value / 8}));
  EXPECT_GE(held(), before);
  free_all(adaptor_, others);
  free_all(adaptor_, kept);
  expect_no_fault(adaptor_);
}

// While memory is given back no lock is held: a request that comes then must not be answered with bytes that are about to go.
TEST_F(EngineHoles, ARequestThatComesMeanwhileWaitsForItsMemory) {
  const std::vector<TensorId> kept = begin_with_gaps();
  adaptor_.begin_threads();
  std::thread other;
  TensorId tensor = 0;
  adaptor_.range().during_shrink = [&] {
    std::promise<void> served;
    std::future<void> answer = served.get_future();
    other = std::thread([this, &tensor, done = std::move(served)]() mutable {
      tensor = adaptor_.allocate(kTensor);
      done.set_value();
    });
    answer.wait_for(std::chrono::milliseconds(100));
  };
  static_cast<void>(adaptor_.engine().release_inside(kGiB));
  adaptor_.range().during_shrink = nullptr;
  other.join();
  adaptor_.end_threads();
  EXPECT_TRUE(adaptor_.engine().is_valid()) << "a live block lies in memory that was given back";
  adaptor_.free(tensor);
  free_all(adaptor_, kept);
  expect_no_fault(adaptor_);
}

TEST(EngineHolesOfWhole, AnArenaThatDoesNotGrowInPlaceHasNone) {
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.range.grows_in_place = false;
  SimulatedAdaptor adaptor(options);
  adaptor.engine().mark(MarkKind::kUser, 0);
  std::vector<TensorId> tensors;
  for (int i = 0; i < 4; ++i) tensors.push_back(adaptor.allocate(kTensor));
  adaptor.free(tensors[1]);
  EXPECT_EQ(adaptor.engine().release_inside(kGiB), Bytes{});
  for (const int i : {0, 2, 3}) adaptor.free(tensors[static_cast<std::size_t>(i)]);
  expect_no_fault(adaptor);
}

}  // namespace
}  // namespace ebbtide::simulation
