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
  const double reached = peak * share_of_peak(work, speed);
  const double bandwidth = speed.memory_bandwidth * speed.memory;
  const Cut cut = best_cut(work.product, speed.multiprocessors, reached, bandwidth);
  const double computing = work.flops * cut.busy / reached;
  const double moving = work.bytes / bandwidth;
  const double adding = cut.partial_bytes / bandwidth;  // a kernel of its own, behind the product's
  return std::max({computing, moving, work.launches * speed.kernel_seconds}) + adding;
}

double attention_pairs(double queries, double keys, bool is_causal) {
  if (!is_causal) return queries * keys;
  const double seen = std::min(queries, keys);  // the first queries - keys of them see nothing
  return seen * keys - seen * (seen - 1) / 2;
}

}  // namespace ebbtide::dryrun
