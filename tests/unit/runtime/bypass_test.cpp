// Requests that no plan can serve: who they are, and that the engine's lock is not theirs to take.
#include "allocator/runtime/bypass.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/runtime/simulated_adaptor.h"

namespace ebbtide::simulation {
namespace {

using Passing = Engine::Passing;

constexpr Bytes kSize{16 * kMiB.value};
constexpr StreamId kSide{9};

// As torch's statistics do.
class Counting final : public ArenaObserver {
 public:
  void placed(const void*, Bytes, StreamId) noexcept override {}
  void released(const void*, Bytes) noexcept override {}
  std::optional<LiveTotals> live() noexcept override { return LiveTotals{Bytes{5}, Bytes{7}}; }
  std::vector<Bytes> sizes_alive() noexcept override {
    asked += 1;
    return {Bytes{4096}};
  }
  int asked = 0;
};

void round(SimulatedAdaptor& adaptor) {
  adaptor.engine().settle();
  adaptor.engine().mark(MarkKind::kForward, 1);
  adaptor.free(adaptor.allocate(kSize));
}

TEST(Bypass, OtherStreamsPassOnceTheHomeStreamIsKnown) {
  SimulatedAdaptor adaptor;
  EXPECT_EQ(adaptor.engine().pass_by(kSize, kSide), Passing::kTracked) << "nothing has begun";
  adaptor.engine().mark(MarkKind::kForward, 1);
  EXPECT_EQ(adaptor.engine().pass_by(kSize, kSide), Passing::kNo) << "it may be the home stream";
  adaptor.free(adaptor.allocate(kSize));
  EXPECT_EQ(adaptor.engine().pass_by(kSize, kSide), Passing::kTracked);
  EXPECT_EQ(adaptor.engine().pass_by(kSize, StreamId{}), Passing::kNo);
  EXPECT_EQ(adaptor.engine().pass_by(kSize), Passing::kNo) << "it depends on the stream";
  EXPECT_EQ(adaptor.engine().snapshot().counters.unplanned.requests, 2);
}

TEST(Bypass, WhereSomebodyElseCountsWhatIsAliveTheEngineNeedNotHearOfIt) {
  Counting counting;
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.engine.observer = &counting;
  SimulatedAdaptor adaptor(options);
  Engine& engine = adaptor.engine();
  EXPECT_EQ(engine.pass_by(kSize), Passing::kUntracked) << "not even of parameters";
  EXPECT_EQ(counting.asked, 0);
  engine.mark(MarkKind::kForward, 1);
  EXPECT_EQ(counting.asked, 1) << "their sizes are asked for once";
  const Engine::Grant grant = engine.allocate(kSize, {});
  ASSERT_NE(grant.address, nullptr);
  EXPECT_TRUE(engine.deallocate(grant.address));
  EXPECT_EQ(engine.pass_by(kSize, kSide), Passing::kUntracked);
  EXPECT_EQ(engine.snapshot().live, Bytes{5});
  EXPECT_EQ(engine.snapshot().counters.peak_live, Bytes{7});
  engine.mark(MarkKind::kForward, 1);
  EXPECT_EQ(counting.asked, 1);
}

TEST(Bypass, AskingForAPlaceAnywhereIsTheHomeStreamsRight) {
  SimulatedAdaptor adaptor;
  for (int i = 0; i < 4; ++i) round(adaptor);
  adaptor.engine().mark(MarkKind::kForward, 1);
  const TensorId kept = adaptor.allocate(kSize);
  ASSERT_EQ(adaptor.arena_live(), kSize);
  EXPECT_EQ(adaptor.engine().allocate_anywhere(kSize, kSide, {}), nullptr);
  adaptor.free(kept);
  void* place = adaptor.engine().allocate_anywhere(kSize, StreamId{}, {});
  ASSERT_NE(place, nullptr);
  adaptor.engine().mark(MarkKind::kForward, 1);
  EXPECT_EQ(adaptor.engine().block_at(place).size, kSize) << "it outlives its round";
  EXPECT_TRUE(adaptor.engine().deallocate(place));
  round(adaptor);
  EXPECT_TRUE(adaptor.engine().is_valid());
}

}  // namespace
}  // namespace ebbtide::simulation
