#include "tests/unit/runtime/engine_fuzz.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <iostream>
#include <sstream>
#include <thread>

namespace ebbtide::simulation {
namespace {

// In all 10 million instructions under the address sanitizer, 1 million under the thread sanitizer: nearly all of them in
// programs that settle, because what is learnt takes a thousand times as long as what is served.
#if defined(__SANITIZE_THREAD__)
constexpr std::size_t kSteadyInstructions = 250'000;
constexpr std::size_t kDisorderly = 5'000;
#elif defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kSteadyInstructions = 2'500'000;
constexpr std::size_t kDisorderly = 20'000;
#else
constexpr std::size_t kSteadyInstructions = 250'000;
constexpr std::size_t kDisorderly = 50'000;
#endif
constexpr std::size_t kReaching = 1'000;  // of each of several programs
constexpr std::chrono::seconds kShortening{60};

// A check that fails inside the engine ends the process: the name of the running test is the seed then.
Counters run(std::uint64_t seed, Disorder disorder, std::size_t instructions) {
  Program program = ProgramWriter(seed, disorder).write(instructions);
  SimulatedAdaptor adaptor(quick_planning());
  const std::optional<std::string> fault = fault_of(program, adaptor);
  if (!fault) {
    EXPECT_EQ(adaptor.arena_live(), Bytes{});
    return adaptor.engine().snapshot().counters;
  }
  std::cerr << "seed " << seed << "; paste as a regression test:\n";
  print(std::cerr, shortened(std::move(program), kShortening));
  ADD_FAILURE() << *fault;
  return {};
}

class EngineFuzz : public testing::TestWithParam<std::uint64_t> {};

TEST_P(EngineFuzz, RandomProgramsNeverShareAByteAndAddUp) {
  EXPECT_GT(run(GetParam(), {}, kDisorderly).planned.requests, 0);
}

TEST_P(EngineFuzz, NorDoProgramsThatSettle) {
  const Counters counters = run(GetParam(), kSteady, kSteadyInstructions);
  EXPECT_GT(counters.planned.requests * 2, counters.all.requests) << "most of it was not served";
}

INSTANTIATE_TEST_SUITE_P(Seeds, EngineFuzz, testing::Values(1, 2, 3, 4));

TEST(EngineFuzzItself, ProgramsReachEveryWayOfBeingServed) {
  Counters sum;
  for (std::uint64_t seed = 11; seed < 19; ++seed) {
    const Counters counters = run(seed, {}, kReaching);
    sum.gap.requests += counters.gap.requests;
    sum.planned.requests += counters.planned.requests;
    sum.unplanned.requests += counters.unplanned.requests;
  }
  EXPECT_GT(sum.gap.requests, 0);
  EXPECT_GT(sum.planned.requests, 0);
  EXPECT_GT(sum.unplanned.requests, 0);
}

TEST(EngineFuzzItself, ProgramsAreTheSameForTheSameSeedAndCanBePrinted) {
  const Program a = ProgramWriter(5).write(100);
  const Program b = ProgramWriter(5).write(100);
  std::ostringstream text_of_a;
  std::ostringstream text_of_b;
  print(text_of_a, a);
  print(text_of_b, b);
  EXPECT_EQ(text_of_a.str(), text_of_b.str());
  EXPECT_EQ(text_of_a.str().rfind("{Op::kMark, ", 0), 0U) << text_of_a.str();
}

// One thread marks and allocates, others allocate, free and give memory back; each owns its tensors.
TEST(EngineThreads, ManyThreadsNeverShareAByte) {
  SimulatedAdaptor adaptor;
  adaptor.begin_threads();
  constexpr int kRounds = 60;
  std::atomic<bool> done{false};
  const auto work = [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<TensorId> live;
    while (!done.load()) {
      live.push_back(adaptor.allocate(size_of(static_cast<std::uint32_t>(random() % 8), 1)));
      if (random() % 8 == 0) adaptor.use_on(live.back(), StreamId{seed});
      if (live.size() <= 12) continue;
      adaptor.free(live.front());
      live.erase(live.begin());
      // Rounds stay of a size that can be learnt: planning is not what is tested here.
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    for (const TensorId tensor : live) adaptor.free(tensor);
  };
  std::vector<std::thread> threads;
  threads.emplace_back(work, 1);
  threads.emplace_back(work, 2);
  threads.emplace_back([&] {
    while (!done.load()) {
      static_cast<void>(adaptor.engine().release_idle());
      static_cast<void>(adaptor.engine().release_inside(kMiB));
      static_cast<void>(adaptor.engine().snapshot());
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    adaptor.engine().mark(round % 3 == 2 ? MarkKind::kOptimizer : MarkKind::kUser, 1);
    std::vector<TensorId> live;
    for (std::uint32_t i = 0; i < 40; ++i) live.push_back(adaptor.allocate(size_of(i % 7, 1)));
    for (const TensorId tensor : live) adaptor.free(tensor);
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  adaptor.end_threads();
  adaptor.check_books();
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
  EXPECT_EQ(adaptor.arena_live(), Bytes{});
}

}  // namespace
}  // namespace ebbtide::simulation
