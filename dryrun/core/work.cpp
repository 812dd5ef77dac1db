#include "dryrun/core/work.h"

#include <algorithm>

namespace ebbtide::dryrun {

namespace {

bool runs_on_tensor_cores(NumberKind numbers) {
  return numbers == NumberKind::kTensorFloat32 || numbers == NumberKind::kFloat16 ||
         numbers == NumberKind::kBFloat16;
}

// cuBLAS takes other kernels where it cannot load 16 bytes at once: one that loads 4 at multiples
// of 4, and one that loads number by number (8-byte rows get no kernel of their own).
double share_of_matrix(const Work& work, const DeviceSpeed& speed) {
  if (work.row_alignment >= kWholeAlignment || !runs_on_tensor_cores(work.numbers)) {
    return speed.matrix;
  }
  return work.row_alignment >= 4 ? speed.matrix_rows_4 : speed.matrix_rows_2;
}

double share_of_attention(const Work& work, const DeviceSpeed& speed) {
  if (work.is_cudnn) {
    return work.is_backward ? speed.cudnn_attention_backward : speed.cudnn_attention_forward;
  }
  return work.is_backward ? speed.attention_backward : speed.attention_forward;
}

double share_of_peak(const Work& work, const DeviceSpeed& speed) {
  if (work.activity == Activity::kMatrix) return share_of_matrix(work, speed);
  return work.activity == Activity::kAttention ? share_of_attention(work, speed) : work.share;
}

// Blocks of 1024 threads, as kernels of long rows have: as many are at work at once.
constexpr double kBlocksPerMultiprocessor = 2;

double reread_bytes(const RowPasses& rows, const DeviceSpeed& speed) {
  const double at_once = rows.bytes * kBlocksPerMultiprocessor * speed.multiprocessors;
  return at_once > speed.l2_bytes && speed.l2_bytes > 0 ? rows.reread : 0;
}

// What a norm's kernels take beyond their bytes: Note [Passes over rows] (dryrun/torch/row_passes.cpp).
constexpr double kNarrowBlocksPerMultiprocessor = 16;  // of 128 threads, at once
constexpr double kBlockSeconds = 1.3e-6, kColumnSeconds = 2.4e-9;
constexpr double kSerialRowSeconds = 2.2e-9;
constexpr double kRoundSeconds = 5e-7;  // assumed

double seconds_of_rows(const RowPasses& rows, const DeviceSpeed& speed) {
  const double at_once = kNarrowBlocksPerMultiprocessor * std::max(speed.multiprocessors, 1);
  const double waves = rows.blocks > 0 ? std::max(1.0, rows.blocks / at_once) : 0;
  const double of_block = kBlockSeconds + rows.columns * kColumnSeconds + rows.rounds * kRoundSeconds;
  return waves * of_block + rows.serial * kSerialRowSeconds;
}

}  // namespace

double seconds_of(const Work& work, const DeviceSpeed& speed) {
  const double peak = speed.peak_flops[static_cast<std::size_t>(work.numbers)];
  const double reached = peak * share_of_peak(work, speed);
  const double bandwidth = speed.memory_bandwidth * speed.memory;
  const Cut cut = best_cut(work.product, speed.multiprocessors, reached, bandwidth);
  const double computing = (work.flops * cut.busy + work.idle_flops) / reached;
  const double moving = (work.bytes + reread_bytes(work.rows, speed)) / bandwidth;
  const double stepping = work.single_elements * speed.element_seconds;
  const double adding = cut.partial_bytes / bandwidth;  // a kernel of its own, behind the product's
  const double rows = seconds_of_rows(work.rows, speed);
  const double launching = work.launches * speed.kernel_seconds;
  const double waiting = work.steps * speed.kernel_seconds;
  return std::max({computing, moving, stepping, rows, launching}) + adding + waiting;
}

double attention_pairs(double queries, double keys, bool is_causal) {
  if (!is_causal) return queries * keys;
  const double seen = std::min(queries, keys);  // the first queries - keys of them see nothing
  return seen * keys - seen * (seen - 1) / 2;
}

}  // namespace ebbtide::dryrun
