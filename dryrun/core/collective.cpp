#include "dryrun/core/collective.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace ebbtide::dryrun {

namespace {

// Bytes that one rank of a ring sends, as a share of the buffer, and steps of the ring.
struct Ring {
  double share;
  double steps;
};

Ring ring_of(Pattern pattern, int ranks) {
  const double others = ranks - 1;
  switch (pattern) {
    case Pattern::kAllReduce:  // a reduce-scatter, then an all-gather
      return {2 * others / ranks, 2 * others};
    case Pattern::kAllGather:
    case Pattern::kReduceScatter:
      return {others / ranks, others};
    case Pattern::kBroadcast:  // in pieces that follow each other
      return {1, others};
    case Pattern::kAllToAll:  // directly, all at once
      return {others / ranks, 1};
    case Pattern::kPointToPoint:
      break;
  }
  return {1, 1};
}

double ring_latency(double steps, const GroupPlace& place, const DeviceSpeed& speed) {
  const double crossing = place.nodes == 1 ? 0 : static_cast<double>(place.nodes) / place.ranks;
  return steps * (crossing * speed.network_hop_seconds + (1 - crossing) * speed.peer_hop_seconds);
}

// Up and down a binary tree of nodes, in each of which the ranks form a chain.
double tree_latency(const GroupPlace& place, const DeviceSpeed& speed) {
  const double chain = std::ceil(static_cast<double>(place.ranks) / place.nodes) - 1;
  const double levels = std::ceil(std::log2(static_cast<double>(place.nodes)));
  return 2 * (levels * speed.network_hop_seconds + chain * speed.peer_hop_seconds);
}

}  // namespace

GroupPlace place_of(std::span<const int> ranks, int devices_per_node) {
  std::map<int, int> on_node;
  for (const int rank : ranks) ++on_node[rank / devices_per_node];
  GroupPlace place{static_cast<int>(ranks.size()), static_cast<int>(on_node.size()),
                   static_cast<int>(ranks.size())};
  for (const auto& [node, count] : on_node) {
    place.least_on_node = std::min(place.least_on_node, count);
  }
  return place;
}

CollectiveCost cost_of(Pattern pattern, double bytes, const GroupPlace& place,
                       const DeviceSpeed& speed) {
  CollectiveCost cost{.latency = speed.collective_seconds};
  if (place.ranks == 1) return cost;
  const Ring ring = ring_of(pattern, place.ranks);
  const double peer_rate = speed.peer_bandwidth * speed.peer_link;
  const double adapter_rate = speed.network_bandwidth * speed.network;
  cost.sent_bytes = ring.share * bytes;
  cost.latency += ring_latency(ring.steps, place, speed);
  if (pattern == Pattern::kAllReduce) {
    cost.latency = std::min(cost.latency, speed.collective_seconds + tree_latency(place, speed));
  }
  if (place.nodes == 1) {
    cost.transfer = cost.sent_bytes / peer_rate;
    return cost;
  }
  double inside = cost.sent_bytes / peer_rate;
  double across = 0;
  if (pattern == Pattern::kAllToAll) {
    // What goes to other nodes goes through the rank's own adapter.
    const double away = bytes * (place.ranks - place.least_on_node) / place.ranks;
    across = away / adapter_rate;
    inside = (cost.sent_bytes - away) / peer_rate;
  } else {
    // As many rings as the group has ranks on a node, each through another adapter.
    across = cost.sent_bytes / (adapter_rate * place.least_on_node);
  }
  cost.transfer = std::max(inside, across);
  cost.fabric = across >= inside ? Fabric::kNetwork : Fabric::kPeers;
  return cost;
}

}  // namespace ebbtide::dryrun
