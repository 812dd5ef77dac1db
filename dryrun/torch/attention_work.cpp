#include "dryrun/torch/attention_work.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "dryrun/torch/number_kind.h"

namespace ebbtide::dryrun {

namespace {

// Note [Attention's overhead]
// Idle keys: each query costs some keys beyond those that it sees, for beginning a block of
// queries, ending it, and masked pairs of the diagonal's blocks. FlashAttention-2, from its TFLOP/s
// on an H100 with 512 to 4096 tokens beside 16384 (FlashAttention-3, arXiv 2407.08608, figures 5
// and 6, head sizes 64 and 128): 106 to 196 causal, 22 to 101 without a mask, 159 to 258 backward.
// cuDNN 9.19, from NVIDIA's times on an H200 with 2048 to 32768 tokens, head size 128
// (NVIDIA/cudnn-frontend, benchmark/sdpa_benchmark_training/results/h200_919_only_cudnn,
// Llama 3.1): forward within 2 %, backward within 2 % but for 32768 tokens without a mask (6 %
// slower there than predicted).
//
// Softmax: a pair costs exponents and sums besides its products, as if heads were wider by a number
// of elements. Shares of the peak are those of heads of 128, wider ones are charged like them. From
// the TFLOP/s of heads of 64 and 128 in the same figures (no mask; cuDNN 9.1): FlashAttention-2 327
// and 377, backward 296 and 329, cuDNN 419 and 621, backward 451 and 542. cuDNN 9.19 with heads of
// 64 and a window of 1024 keys (gpt_oss of the same results, not used) takes 0.92 to 1.06 of it.
struct Overhead {
  double causal_keys, keys;  // of a query, with a causal mask and without
  double softmax_width;      // elements of a head
};
constexpr Overhead kFlashForward{150, 60, 23}, kFlashBackward{220, 220, 16};
constexpr Overhead kCudnnForward{460, 245, 120}, kCudnnBackward{640, 420, 32};
constexpr double kSharesWidth = 128;

const Overhead& overhead_of(const AttentionArguments& at) {
  if (at.is_cudnn) return at.is_backward ? kCudnnBackward : kCudnnForward;
  return at.is_backward ? kFlashBackward : kFlashForward;
}

// Longer by this than heads of 128 for the same operations.
double slowness(double width, double softmax_width) {
  const auto relative = [&](double of) { return (of + softmax_width) / of; };
  return std::max(1.0, relative(width) / relative(kSharesWidth));
}

// Of queries and keys: [batch, tokens, heads, size], [batch, heads, tokens, size] for cuDNN, or
// [tokens, heads, size] of packed sequences.
struct Shape {
  double batch, tokens, heads, width;

  Shape(const at::Tensor& tensor, bool heads_first) {
    const bool is_packed = tensor.dim() == 3;
    const int token_dim = is_packed ? 0 : heads_first ? 2 : 1;
    const int head_dim = is_packed ? 1 : heads_first ? 1 : 2;
    batch = is_packed ? 1 : static_cast<double>(tensor.size(0));
    tokens = static_cast<double>(tensor.size(token_dim));
    heads = static_cast<double>(tensor.size(head_dim));
    width = static_cast<double>(tensor.size(-1));
  }
};

// Causal: query i sees all keys up to its own, counted from the last ones (FlashAttention), or from
// the first (torch's scaled_dot_product_attention, which cuDNN follows).
double pairs_of(double queries, double keys, bool is_causal, bool from_first) {
  if (!is_causal || !from_first || queries == keys) {
    return attention_pairs(queries, keys, is_causal);
  }
  const double both = std::min(queries, keys);
  return both * (both + 1) / 2 + std::max(0.0, queries - keys) * keys;
}

// Torch's memory-efficient backward names its number of heads as the most keys where nothing is packed.
bool is_packed(const AttentionArguments& at, const c10::IValue* arguments) {
  if (at.begins < 0 || at.longest < 0) return false;
  const c10::IValue& begins = arguments[at.begins];
  const c10::IValue& longest = arguments[at.longest];
  return begins.isTensor() && begins.toTensor().defined() && longest.isInt() && longest.toInt() > 0;
}

bool is_causal_mask(const c10::IValue& causal) {
  return causal.isBool() ? causal.toBool() : causal.isInt() && causal.toInt() != 0;
}

}  // namespace

Work attention_work(const AttentionArguments& at, const c10::IValue* arguments) {
  const at::Tensor query = arguments[at.query].toTensor();
  const Shape queries(query, at.is_cudnn);
  const double value_width = static_cast<double>(arguments[at.value].toTensor().size(-1));
  double keys = Shape(arguments[at.key].toTensor(), at.is_cudnn).tokens;
  const bool packed = is_packed(at, arguments);
  if (packed) {
    keys = std::min(keys, static_cast<double>(arguments[at.longest].toInt()));
  }
  const bool is_causal = is_causal_mask(arguments[at.causal]);
  // Packed: as many full sequences as the tokens make.
  const double sequences = packed && keys > 0 ? queries.tokens / keys : 1;
  const double pairs =
      sequences * pairs_of(queries.tokens / sequences, keys, is_causal, at.is_cudnn);
  // Forward: scores and their product with the values. Backward: both again, and three more.
  const double widths =
      at.is_backward ? 3 * queries.width + 2 * value_width : queries.width + value_width;
  const double of_pair = queries.batch * queries.heads * 2 * widths;
  const Overhead& overhead = overhead_of(at);
  const double idle = queries.tokens * (is_causal ? overhead.causal_keys : overhead.keys);
  const double slower = slowness(queries.width, overhead.softmax_width);
  return {.activity = Activity::kAttention,
          .flops = of_pair * pairs,
          .idle_flops = of_pair * ((pairs + idle) * slower - pairs),
          .numbers = numbers_of(query.scalar_type()),
          .is_backward = at.is_backward,
          .is_cudnn = at.is_cudnn};
}

}  // namespace ebbtide::dryrun
