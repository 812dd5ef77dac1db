#include "dryrun/core/work.h"

#include <algorithm>

namespace ebbtide::dryrun {

namespace {

double share_of_peak(const Work& work, const DeviceSpeed& speed) {
  if (work.activity == Activity::kMatrix) return speed.matrix;
  if (work.activity != Activity::kAttention) return 1;
  return work.is_backward ? speed.attention_backward : speed.attention_forward;
}

}  // namespace

double seconds_of(const Work& work, const DeviceSpeed& speed) {
  const double peak = speed.peak_flops[static_cast<std::size_t>(work.numbers)];
  const double computing = work.flops / (peak * share_of_peak(work, speed));
  const double moving = work.bytes / (speed.memory_bandwidth * speed.memory);
  return std::max({computing, moving, work.launches * speed.kernel_seconds});
}

double attention_pairs(double queries, double keys, bool is_causal) {
  if (!is_causal) return queries * keys;
  const double seen = std::min(queries, keys);  // the first queries - keys of them see nothing
  return seen * keys - seen * (seen - 1) / 2;
}

}  // namespace ebbtide::dryrun
