// When collectives run on one device, and how much longer products take beside them: NCCL's blocks
// keep multiprocessors to themselves while they wait for their links.
#pragma once

#include <array>
#include <deque>

#include "dryrun/core/collective.h"
#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

class EBBTIDE_DRYRUN_API BusyFabric {
 public:
  // When links of a kind are free for the next collective.
  double& free_from(Fabric fabric) { return free_[static_cast<std::size_t>(fabric)]; }

  // `share` of the device's multiprocessors, in [0, 1), is taken from `begin` to `end`.
  void take(double begin, double end, double share);

  // When work ends that begins at `begin` and takes `seconds` on the whole device. Of two
  // collectives at once the first counts.
  double end_of(double begin, double seconds) const;

 private:
  struct Taken {
    double begin, end, share;
  };

  std::array<double, 2> free_{};
  std::deque<Taken> taken_;  // the latest ones, in the order they were queued
};

}  // namespace ebbtide::dryrun
