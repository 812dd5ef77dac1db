// How long a collective operation takes: bytes over links, as rings carry them, and steps. Pure
// functions of a group's place in the machines and of a device's description.
#pragma once

#include <array>
#include <span>

#include "dryrun/core/device_model.h"
#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

enum class Pattern { kAllReduce, kAllGather, kReduceScatter, kBroadcast, kAllToAll, kPointToPoint };

// Where the ranks of a group are: rank r is on node r / DeviceSpeed::devices_per_node.
// Invariant: 1 <= nodes <= ranks, 1 <= least_on_node <= ranks / nodes.
struct GroupPlace {
  int ranks = 1;
  int nodes = 1;
  int least_on_node = 1;  // of the group's ranks, on the node that has fewest of them
};

EBBTIDE_DRYRUN_API GroupPlace place_of(std::span<const int> ranks, int devices_per_node);

// The links that a collective occupies.
enum class Fabric { kPeers, kNetwork };

struct CollectiveCost {
  double latency = 0;              // seconds that pass without occupying a link
  double transfer = 0;             // seconds that its links are busy
  double sent_bytes = 0;           // by one rank
  Fabric fabric = Fabric::kPeers;  // the slower one of those it needs
};

// `bytes`: of the buffer that all ranks together make or share: the reduced or broadcast one, the
// gathered one, the one before it is scattered; what one rank sends to all, or to its peer.
EBBTIDE_DRYRUN_API CollectiveCost cost_of(Pattern pattern, double bytes, const GroupPlace& place,
                                          const DeviceSpeed& speed);

}  // namespace ebbtide::dryrun
