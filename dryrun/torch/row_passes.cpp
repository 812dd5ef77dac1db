#include "dryrun/torch/row_passes.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

namespace ebbtide::dryrun {

namespace {

// Note [Passes over rows]
// Softmax (aten/src/ATen/native/cuda/SoftMax.cu): forward looks for the largest, sums, and writes,
// three times over its input. Rows of up to 48 KiB wait in shared memory, others in the L2 cache if
// those at work fit in it. Backward sums over the gradient before it writes. (Softmax's multiplies
// gradient and result first: that is an operator of its own.) Measured, float32: 16384 rows on an
// A100, three reads and a write at 0.81 of the bandwidth from 32768 columns on, one read and a
// write at 16384; 300 rows of 128256 on an H100 at 0.79, backward (three reads and a write) at
// 0.72.
//
// Norms (aten/src/ATen/native/cuda/layer_norm_kernel.cu): forward reads twice, for the sums and for
// the result. Backward reads gradient and input for the row's sums, again for its result, and again
// for the weight's gradient. Measured, of what a single pass takes: forward 0.52 of the bandwidth on
// an A100 and an H100, 4096 rows of 8192 or more; forward and backward of bfloat16 rows of 2048 to
// 16384 on an H200 0.8 to 1.25 of what this gives (NVIDIA/cudnn-frontend, benchmark/norms/results).
// Few or short rows take longer than their bytes: each has a block of 128 threads, 16 at once on a
// multiprocessor, for about 1.3 us and 2.4 ns a column. The weight's gradient has a block for each 32
// columns, which goes through all rows, unless these are more than 65536. On an H200 8192 and 16384
// rows of 128 take 7.5 and 12.7 us forward, 27 and 51 backward, 1024 of 12288 31 forward (same
// source; on a GB300, with 1.7 times the bandwidth, 8, 14, 29, 56 and 30).
//
// Reductions over some dimensions read once, at 0.49 to 0.65 of the bandwidth of an H100 (of rows
// of 128 in float32, of columns in bfloat16, 105 to 210 MB): as if half were read again.
//
// Norms over groups and batches (group_norm_kernel.cu, Normalization.cuh): forward reads for the sums, and
// again for the result; backward reads input and gradient twice. With statistics of before a batch's are not
// taken: one pass.
//
// Distances of all pairs (DistanceKernel.cu) have a block of 256 threads each, but Euclidean ones of more than 25 points,
// which are a product. That they are slow is known (`torch.cdist(p=1)` was 15 % of a detector's step: rf-detr); what a block
// takes is assumed to be what a norm's do.
//
// Other sources: Liger-Kernel's benchmark/data/all_benchmark_data.csv (cross_entropy, layer_norm,
// megatron_rms_norm: torch's and Hugging Face's rows), and a trace of Llama 3.2 on an H100
// (TraceLens, evals/.../llama3_2).
constexpr double kSharedRow = 48.0 * 1024;
constexpr double kReadAgainByReductions = 0.5;
constexpr double kMostSerialRows = 64 * 1024;  // of a weight's gradient

double all_bytes(const at::Tensor& tensor) {
  return static_cast<double>(tensor.numel()) * static_cast<double>(tensor.element_size());
}

// Along the last dimension only: others have kernels of their own.
double row_bytes(const at::Tensor& tensor, const c10::IValue& dim) {
  const std::int64_t last = tensor.dim() - 1;
  if (last < 0 || !dim.isInt() || (dim.toInt() != -1 && dim.toInt() != last)) return 0;
  return static_cast<double>(tensor.size(last)) * static_cast<double>(tensor.element_size());
}

void add_softmax(const at::Tensor& input, const c10::IValue& dim, Work& work) {
  const double row = row_bytes(input, dim);
  if (row > kSharedRow) work.rows = {.bytes = 2 * row, .reread = 2 * all_bytes(input)};
}

void add_softmax_backward(const at::Tensor& gradient, const c10::IValue& dim, Work& work) {
  work.rows = {.bytes = 2 * row_bytes(gradient, dim), .reread = all_bytes(gradient)};
}

// A block of threads for each row that a norm has, by the shape that it is taken over.
void add_blocks(const at::Tensor& input, const c10::IValue& normalized, Work& work) {
  double columns = 1;
  for (const auto& size : normalized.toDimVector()) columns *= static_cast<double>(size);
  if (columns == 0) return;
  work.rows.columns = columns;
  work.rows.blocks = static_cast<double>(input.numel()) / columns;
}

void add_norm_backward(const at::Tensor& gradient, const c10::IValue& normalized, Work& work) {
  work.bytes += 4 * all_bytes(gradient);
  add_blocks(gradient, normalized, work);
  if (work.rows.blocks <= kMostSerialRows) work.rows.serial = work.rows.blocks;
}

bool is_product(const c10::IValue* arguments, double most_points) {
  constexpr double kMostPairwise = 25;
  const std::int64_t mode = arguments[3].isInt() ? arguments[3].toInt() : 0;
  return arguments[2].toDouble() == 2 && mode != 2 && (mode == 1 || most_points > kMostPairwise);
}

void add_pairs(const c10::IValue* arguments, Work& work) {
  constexpr double kBlocksOfPair = 2;  // of 128 threads
  const at::Tensor &a = arguments[0].toTensor(), &b = arguments[1].toTensor();
  if (a.dim() < 2 || b.dim() < 2 || a.numel() == 0) return;
  const auto left = static_cast<double>(a.size(-2)), right = static_cast<double>(b.size(-2));
  if (is_product(arguments, std::max(left, right))) return;
  const auto columns = static_cast<double>(a.size(-1));
  work.rows.blocks = static_cast<double>(a.numel()) / columns * right * kBlocksOfPair;
  work.rows.columns = columns / kBlocksOfPair;
}

// Whether a batch norm takes the statistics that it was given. Group norms have no such argument.
bool takes_running_statistics(const OperatorFacts& facts, const c10::IValue* arguments) {
  if (facts.trains < 0) return false;
  const c10::IValue& trains = arguments[facts.trains];
  return trains.isBool() && !trains.toBool();
}

}  // namespace

void add_row_passes(const OperatorFacts& facts, const c10::IValue* arguments, Work& work) {
  if (facts.rows == RowKernel::kNone || !arguments[0].isTensor()) return;
  const at::Tensor& first = arguments[0].toTensor();
  switch (facts.rows) {
    case RowKernel::kNone:
      break;
    case RowKernel::kSoftmax:
      add_softmax(first, arguments[1], work);
      break;
    case RowKernel::kSoftmaxBackward:
      add_softmax_backward(first, arguments[2], work);
      break;
    case RowKernel::kNorm:
      work.bytes += all_bytes(first);
      add_blocks(first, arguments[1], work);
      break;
    case RowKernel::kReduction:
      if (arguments[1].isIntList() && arguments[1].toIntList().size() > 0) {
        work.bytes += kReadAgainByReductions * all_bytes(first);
      }
      break;
    case RowKernel::kReadTwice:
      if (!takes_running_statistics(facts, arguments)) work.bytes += all_bytes(first);
      break;
    case RowKernel::kBackwardReadsTwice:
      work.bytes += 2 * all_bytes(first);
      break;
    case RowKernel::kPairs:
      add_pairs(arguments, work);
      break;
    case RowKernel::kNormBackward:
      add_norm_backward(first, arguments[2], work);
      break;
  }
}

}  // namespace ebbtide::dryrun
