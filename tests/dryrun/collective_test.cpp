#include "dryrun/core/collective.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/dryrun/example_speed.h"

namespace ebbtide::dryrun {
namespace {

constexpr double kGigabyte = 1e9;

GroupPlace first(int ranks) {
  std::vector<int> members(static_cast<std::size_t>(ranks));
  std::iota(members.begin(), members.end(), 0);
  return place_of(members, example_speed().devices_per_node);
}

CollectiveCost cost(Pattern pattern, double bytes, const GroupPlace& place) {
  return cost_of(pattern, bytes, place, example_speed());
}

TEST(GroupPlaceTest, RanksAreOnNodesInOrder) {
  const GroupPlace whole = first(8);
  EXPECT_EQ(whole.nodes, 2);
  EXPECT_EQ(whole.least_on_node, 4);
  const GroupPlace across = place_of(std::vector<int>{1, 5, 9}, 4);
  EXPECT_EQ(across.nodes, 3);
  EXPECT_EQ(across.least_on_node, 1);
  EXPECT_EQ(place_of(std::vector<int>{0, 1, 4}, 4).least_on_node, 1);
}

TEST(CollectiveTest, ARingSendsWhatItsFormulasSay) {
  // 4 ranks on one node, 100 GB/s to a peer
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllReduce, 4 * kGigabyte, first(4)).transfer, 0.06);
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllGather, 4 * kGigabyte, first(4)).transfer, 0.03);
  EXPECT_DOUBLE_EQ(cost(Pattern::kReduceScatter, 4 * kGigabyte, first(4)).transfer, 0.03);
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllToAll, 4 * kGigabyte, first(4)).transfer, 0.03);
  EXPECT_DOUBLE_EQ(cost(Pattern::kBroadcast, 4 * kGigabyte, first(4)).transfer, 0.04);
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllReduce, 4 * kGigabyte, first(4)).sent_bytes, 6 * kGigabyte);
}

TEST(CollectiveTest, StepsTakeTheirTimeWhateverTheBytes) {
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllGather, 0, first(4)).latency, 13e-6);
  // Down and up a chain of four is as long as twice around it.
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllReduce, 0, first(4)).latency, 16e-6);
  // 8 ranks on 2 nodes: of 7 steps of the ring a quarter is over the network
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllGather, 0, first(8)).latency, 10e-6 + 7 * 1.75e-6);
  // 16 nodes: a tree of 4 levels is shorter than a ring of 126 steps
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllReduce, 0, first(64)).latency, 10e-6 + 2 * (16e-6 + 3e-6));
}

TEST(CollectiveTest, AGroupOverNodesUsesTheAdaptersOfItsRanks) {
  // GIVEN two nodes with 4 ranks each: 40 GB/s between them, less than to a peer
  const CollectiveCost whole = cost(Pattern::kAllGather, 8 * kGigabyte, first(8));
  EXPECT_DOUBLE_EQ(whole.transfer, 7.0 / 40);
  EXPECT_EQ(whole.fabric, Fabric::kNetwork);
  // WHEN only one rank of each node belongs to it, THEN it has one adapter
  const GroupPlace across = place_of(std::vector<int>{0, 4}, 4);
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllGather, 8 * kGigabyte, across).transfer, 4.0 / 10);
  // To half of the ranks of an all-to-all it is the other node: each through its own adapter.
  EXPECT_DOUBLE_EQ(cost(Pattern::kAllToAll, 8 * kGigabyte, first(8)).transfer, 4.0 / 10);
}

TEST(CollectiveTest, ARankAloneOnlyStarts) {
  const CollectiveCost alone = cost(Pattern::kAllReduce, kGigabyte, first(1));
  EXPECT_DOUBLE_EQ(alone.latency, 10e-6);
  EXPECT_EQ(alone.transfer, 0);
  EXPECT_EQ(alone.sent_bytes, 0);
}

}  // namespace
}  // namespace ebbtide::dryrun
