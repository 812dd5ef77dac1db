#include "allocator/runtime/plan_maker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>

#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using samples::lasting;
using samples::mib;
using samples::request;
using samples::round_of;
using samples::survivor;

// Rounds of random requests; some outlive their round and end in one of the next two.
class RandomTraining {
 public:
  explicit RandomTraining(std::uint32_t seed) : random_(seed) {
    for (std::size_t k = 0; k < bases_.size(); ++k) bases_[k] = random_requests();
  }

  Round next() {
    const std::size_t kind = serial_ % bases_.size();
    Round round = round_of(++serial_, bases_[kind], kind == 2 ? RoundKind::kOptimizer : RoundKind::kForward);
    round.source = static_cast<std::uint32_t>(kind);
    const double length = 1 + static_cast<double>(random_() % 3);
    for (std::size_t i = 0; i < round.requests.size(); ++i) {
      if (i % 4 != 0) round.requests[i].size = Bytes{round.requests[i].size.value * static_cast<std::int64_t>(length)};
    }
    for (Survivor& survivor : alive_) survivor.end = random_() % 2 == 0 ? kAlive : random_tick(round);
    round.survivors = alive_;
    std::erase_if(alive_, [](const Survivor& survivor) { return survivor.end != kAlive; });
    for (std::uint32_t i = 0; i < round.requests.size(); ++i) {
      const Request& request = round.requests[i];
      if (request.death == kAlive) alive_.push_back(survivor(serial_, i, request.size));
    }
    return round;
  }

 private:
  Tick random_tick(const Round& round) { return Tick{static_cast<std::int64_t>(random_() % (round.requests.size() + 1))}; }

  std::vector<Request> random_requests() {
    std::vector<Request> requests;
    const auto count = static_cast<std::int64_t>(4 + random_() % 40);
    for (std::int64_t i = 0; i < count; ++i) {
      const Bytes size{4096 + 512 * static_cast<std::int64_t>(random_() % 4000)};
      const std::int64_t death = i + 1 + static_cast<std::int64_t>(random_() % 12);
      requests.push_back(random_() % 10 == 0 ? lasting(size) : request(size, std::min(death, count)));
    }
    return requests;
  }

  std::mt19937 random_;
  std::array<std::vector<Request>, 3> bases_;
  std::vector<Survivor> alive_;
  std::uint32_t serial_ = 0;
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint32_t kSeeds = 8;
#else
constexpr std::uint32_t kSeeds = 40;
#endif

TEST(PlanMaker, EveryPlanOfRandomTrainingIsAccepted) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    RandomTraining training(seed);
    ProgramBook book;
    for (int i = 0; i < 24; ++i) {
      book.learn(training.next());
      // Improving takes its time: one plan in a while shows it.
      PlanOptions options;
      if (i % 24 != 10) options.should_stop = [] { return true; };
      ASSERT_NO_FATAL_FAILURE(samples::plan(book, options)) << "seed " << seed << ", round " << i;
      ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed << ", round " << i;
    }
  }
}

TEST(PlanMaker, ARegularRoundIsPlannedAtItsLowerBound) {
  ProgramBook book;
  std::vector<Request> requests;
  constexpr std::int64_t kLayers = 24;
  for (std::int64_t i = 0; i < kLayers; ++i) {
    requests.push_back(request(mib(32), 4 * kLayers - 2 * i));
    requests.push_back(request(mib(8), 2 * i + 2));
  }
  for (std::int64_t i = 0; i < kLayers; ++i) {
    requests.push_back(request(mib(32), 2 * kLayers + 2 * i + 2));
    requests.push_back(request(mib(16), 2 * kLayers + 2 * i + 2));
  }
  book.learn(round_of(1, requests));
  samples::plan(book);
  const Program& program = book.programs[0];
  EXPECT_LE(static_cast<double>(program.height.value), 1.005 * static_cast<double>(program.lower_bound.value));
  EXPECT_EQ(book.plans, 1U);
}

// A round whose one tensor outlives it and dies in the next: its life wraps around.
Round wrapping_round(std::uint32_t serial, Bytes temporary, Tick end) {
  Round round = round_of(serial, {request(temporary, 1), lasting(mib(64)), request(temporary, 3)});
  if (serial > 1) round.survivors = {survivor(serial - 1, 1, mib(64), end)};
  return round;
}

TEST(PlanMaker, ATensorThatWrapsAroundHasOnePlace) {
  ProgramBook book;
  for (std::uint32_t serial = 1; serial <= 4; ++serial) book.learn(wrapping_round(serial, mib(16), Tick{1}));
  samples::plan(book);
  const Program& program = book.programs.back();
  ASSERT_EQ(program.incoming.size(), 1U);
  const RootId root = program.incoming[0].root;
  ASSERT_TRUE(book.homes.contains(root));
  EXPECT_EQ(program.nodes[1].root, root);
  EXPECT_EQ(program.nodes[1].offset, book.homes.at(root).offset);
  EXPECT_EQ(program.height, mib(80));
}

TEST(PlanMaker, ResidentsKeepTheirHomesAcrossReplans) {
  ProgramBook book;
  for (std::uint32_t serial = 1; serial <= 4; ++serial) book.learn(wrapping_round(serial, mib(16), Tick{1}));
  samples::plan(book);
  const std::map<RootId, Home> before = book.homes;
  ASSERT_FALSE(before.empty());
  // Another program: an optimizer round that finds the tensor alive throughout.
  Round optimizer = round_of(5, {request(mib(4), 1), request(mib(8), 2)}, RoundKind::kOptimizer);
  optimizer.survivors = {survivor(4, 1, mib(64))};
  book.learn(optimizer);
  book.learn(wrapping_round(6, mib(12), Tick{1}));
  samples::plan(book);
  for (const auto& [root, home] : before) {
    ASSERT_TRUE(book.homes.contains(root));
    EXPECT_EQ(book.homes.at(root).offset, home.offset);
  }
  EXPECT_EQ(book.plans, 2U);
}

TEST(PlanMaker, APlanIsMadeAnewOnlyWhereSomethingThatItDependsOnHasChanged) {
  ProgramBook book;
  for (std::uint32_t serial = 1; serial <= 8; ++serial) {
    book.learn(wrapping_round(serial, mib(16), Tick{1}));
    samples::plan(book);
  }
  const std::uint32_t plans = book.plans;
  EXPECT_LE(plans, 3U);
  book.learn(wrapping_round(9, mib(16), Tick{1}));
  samples::plan(book);
  EXPECT_EQ(book.plans, plans);
  book.learn(wrapping_round(10, mib(24), Tick{1}));
  samples::plan(book);
  EXPECT_EQ(book.plans, plans + 1);
}

TEST(PlanMaker, APlanAtItsLowerBoundStaysWhenAnotherProgramIsLearnt) {
  ProgramBook book;
  book.learn(round_of(1, {request(mib(32), 2), request(mib(32), 2)}));
  samples::plan(book);
  Program& heaviest = book.programs[0];
  std::swap(heaviest.nodes[0].offset, heaviest.nodes[1].offset);  // as good, and not what the planner would make
  const Offset place = heaviest.nodes[0].offset;
  book.learn(round_of(2, {request(mib(8), 1)}, RoundKind::kOptimizer));
  samples::plan(book);
  EXPECT_EQ(book.programs[0].nodes[0].offset, place);
  EXPECT_TRUE(book.programs[1].planned);
}

// Tensors for which no plan reaches the lower bound: 4 MiB are alive at most, and 5 are needed.
TEST(PlanMaker, APlanAboveItsBoundIsTriedAnewAsLongAsThatLowersIt) {
  const auto fragmented = [](std::uint32_t serial) {
    return round_of(serial, {request(mib(2), 2), request(mib(2), 4), request(mib(1), 6), request(mib(1), 7), request(mib(1), 6),
                             request(mib(1), 7), request(mib(2), 8), request(mib(2), 8)});
  };
  ProgramBook book;
  for (std::uint32_t serial = 1; serial <= 2; ++serial) {
    book.learn(fragmented(serial));
    samples::plan(book);
  }
  ASSERT_GT(book.height, book.programs[0].lower_bound);
  EXPECT_EQ(book.plans, 2U) << "once more, and in vain";
  book.learn(fragmented(3));
  samples::plan(book);
  EXPECT_EQ(book.plans, 2U);
}

TEST(PlanMaker, TheArenaIsLowerOnceTheHighestProgramIsForgotten) {
  ProgramBook book;
  Round once = round_of(2, {request(mib(96), 1)}, RoundKind::kInference);
  book.learn(round_of(1, {request(mib(32), 1)}));
  book.learn(once);
  samples::plan(book);
  EXPECT_EQ(book.height, mib(96));
  for (std::uint32_t serial = 4100; serial <= 4110; ++serial) book.learn(round_of(serial, {request(mib(32), 1)}));
  ASSERT_EQ(book.programs.size(), 1U);
  samples::plan(book);
  EXPECT_EQ(book.height, mib(32));
}

TEST(PlanMaker, ProgramsShareTheSpaceOfWhatDoesNotOutliveThem) {
  ProgramBook book;
  book.learn(round_of(1, {request(mib(64), 2), request(mib(32), 2)}));
  book.learn(round_of(2, {request(mib(80), 1)}, RoundKind::kOptimizer));
  samples::plan(book);
  EXPECT_EQ(book.height, mib(96));
}

TEST(PlanMaker, AResidentIsClearOfEveryProgramItIsAliveIn) {
  ProgramBook book;
  book.learn(round_of(1, {request(mib(8), 2), lasting(mib(64))}));
  Round optimizer = round_of(2, {request(mib(100), 1)}, RoundKind::kOptimizer);
  optimizer.survivors = {survivor(1, 1, mib(64))};
  book.learn(optimizer);
  samples::plan(book);
  const Node& gradient = book.programs[0].nodes[1];
  const Node& temporary = book.programs[1].nodes[0];
  const bool apart = gradient.offset + gradient.slot <= temporary.offset ||
                     temporary.offset + temporary.slot <= gradient.offset;
  EXPECT_TRUE(apart);
  EXPECT_EQ(book.height, mib(164));
}

TEST(PlanMaker, APlanInWhichTwoTensorsMeetIsRefused) {
  ProgramBook book;
  book.learn(round_of(1, {request(mib(64), 2), request(mib(32), 2)}));
  samples::plan(book);
  Program& program = book.programs[0];
  program.nodes[0].offset = program.nodes[1].offset;
  const Status judged = validate_plans(book);
  ASSERT_FALSE(judged.ok());
  EXPECT_EQ(judged.error().code, ErrorCode::kBadPlan);
}

TEST(PlanMaker, AnEmptyBookHasAnEmptyPlan) {
  ProgramBook book;
  EXPECT_TRUE(make_plans(book, PlanOptions{}).ok());
  EXPECT_EQ(book.height, Bytes{});
}

}  // namespace
}  // namespace ebbtide
