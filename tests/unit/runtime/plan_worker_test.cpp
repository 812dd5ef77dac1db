#include "allocator/runtime/plan_worker.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using samples::mib;
using samples::request;
using samples::round_of;

constexpr Bytes kAlignment{512};
constexpr std::chrono::seconds kLong{30};

Round sample_round(std::uint32_t serial) { return round_of(serial, {request(mib(4), 2), request(mib(2), 2)}); }

TEST(PlanWorker, PublishesTheBookItWasGivenUntilItKnowsMore) {
  ProgramBook book;
  book.learn(sample_round(1));
  PlanWorker worker(book, kAlignment);
  ASSERT_NE(worker.published(), nullptr);
  EXPECT_EQ(worker.published()->programs.size(), 1U);
  EXPECT_TRUE(worker.wait_idle(kLong));
  EXPECT_EQ(worker.times().plans, 0);
}

TEST(PlanWorker, PublishesAPlanOfWhatWasSubmitted) {
  PlanWorker worker({}, kAlignment);
  const auto before = worker.published();
  worker.submit(sample_round(1), {});
  ASSERT_TRUE(worker.wait_idle(kLong));
  const auto after = worker.published();
  EXPECT_NE(after, before);
  EXPECT_TRUE(before->programs.empty()) << "a published book never changes";
  ASSERT_EQ(after->programs.size(), 1U);
  EXPECT_TRUE(after->programs[0].planned);
  EXPECT_EQ(after->height, mib(6));
  EXPECT_EQ(worker.times().plans, 1);
  EXPECT_GT(worker.times().total_ns, 0);
  EXPECT_GE(worker.times().total_ns, worker.times().longest_ns);
}

TEST(PlanWorker, ManySubmitsEndInOneBookThatKnowsThem) {
  PlanWorker worker({}, kAlignment);
  for (std::uint32_t serial = 1; serial <= 40; ++serial) {
    Round round = sample_round(serial);
    round.source = serial % 4;
    worker.submit(std::move(round), {});
  }
  ASSERT_TRUE(worker.wait_idle(kLong));
  const auto book = worker.published();
  ASSERT_EQ(book->programs.size(), 4U);
  std::uint32_t learnt = 0;
  for (const Program& program : book->programs) learnt += program.learnt;
  EXPECT_EQ(learnt, 40U);
}

TEST(PlanWorker, UseKeepsAProgramFresh) {
  PlanWorker worker({}, kAlignment);
  worker.submit(sample_round(1), {});
  ASSERT_TRUE(worker.wait_idle(kLong));
  const std::uint32_t id = worker.published()->programs[0].id;
  Round other = sample_round(30);
  other.source = 7;
  worker.submit(other, {{id, 29}});
  ASSERT_TRUE(worker.wait_idle(kLong));
  EXPECT_EQ(worker.published()->programs[0].last_round, 29U);
}

TEST(PlanWorker, AfterTheStopNothingIsPlannedAndWhatWasPublishedStays) {
  PlanWorker worker({}, kAlignment);
  worker.submit(sample_round(1), {});
  ASSERT_TRUE(worker.wait_idle(kLong));
  const auto before = worker.published();
  worker.stop();
  worker.stop();
  worker.submit(sample_round(2), {});
  EXPECT_TRUE(worker.wait_idle(kLong));
  EXPECT_EQ(worker.published(), before);
}

TEST(PlanWorker, ManyThreadsMaySubmitAndLook) {
  PlanWorker worker({}, kAlignment);
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint32_t i = 0; i < 20; ++i) {
        Round round = sample_round(1 + 4 * i + t);
        round.source = t;
        worker.submit(std::move(round), {});
        EXPECT_LE(worker.published()->programs.size(), 4U);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(worker.wait_idle(kLong));
  EXPECT_LE(worker.published()->programs.size(), 4U);
  EXPECT_GE(worker.published()->programs.size(), 1U);
}

}  // namespace
}  // namespace ebbtide
