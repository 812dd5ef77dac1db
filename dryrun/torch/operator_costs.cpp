#include "dryrun/torch/operator_costs.h"

#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace ebbtide::dryrun {

namespace {

using Names = std::unordered_set<std::string_view>;

const Names kGroupedProducts{"aten::_grouped_mm", "aten::_scaled_grouped_mm",
                             "aten::_scaled_grouped_mm_v2"};
// Read one of their arguments at the places that another names.
const Names kLookingUpOperators{"aten::embedding",         "aten::index_select",
                                "aten::gather",            "aten::index",
                                "aten::take",              "aten::nll_loss_forward",
                                "aten::nll_loss_backward", "aten::nll_loss2d_forward",
                                "aten::nll_loss2d_backward"};
// Ask one of their arguments, "self", for its shape only.
const Names kShapeOnlyOperators{
    "aten::max_pool2d_with_indices_backward", "aten::max_pool3d_with_indices_backward",
    "aten::avg_pool2d_backward",              "aten::avg_pool3d_backward",
    "aten::_adaptive_avg_pool2d_backward",    "aten::_adaptive_avg_pool3d_backward",
    "aten::adaptive_max_pool2d_backward",     "aten::adaptive_max_pool3d_backward",
    "aten::reflection_pad1d_backward",        "aten::reflection_pad2d_backward",
    "aten::replication_pad1d_backward",       "aten::replication_pad2d_backward"};
// Write at the places that an argument names, and leave the rest of "self" alone.
const std::unordered_map<std::string_view, Placing> kPlacingOperators{
    {"aten::_index_put_impl_", Placing::kIndices}, {"aten::index_copy_", Placing::kSource},
    {"aten::index_add_", Placing::kSource},        {"aten::index_reduce_", Placing::kSource},
    {"aten::index_fill_", Placing::kSlices},       {"aten::scatter_", Placing::kElements},
    {"aten::scatter_add_", Placing::kElements},    {"aten::scatter_reduce_", Placing::kElements}};
const Names kAttentionOperators{"aten::_flash_attention_forward", "aten::_flash_attention_backward",
                                "aten::_efficient_attention_forward", "aten::_efficient_attention_backward",
                                "aten::_cudnn_attention_forward", "aten::_cudnn_attention_backward"};

const std::unordered_map<std::string_view, Sorting> kSortingOperators{
    {"aten::sort", Sorting::kSort},           {"aten::mode", Sorting::kSort},
    {"aten::randperm", Sorting::kPermute},    {"aten::_unique", Sorting::kUnique},
    {"aten::_unique2", Sorting::kUnique},     {"aten::unique_dim", Sorting::kUnique},
    {"aten::topk", Sorting::kChoice},         {"aten::kthvalue", Sorting::kChoice},
    {"aten::median", Sorting::kChoice},       {"aten::nanmedian", Sorting::kChoice},
    {"aten::histc", Sorting::kCount},         {"aten::bincount", Sorting::kCount},
    {"aten::searchsorted", Sorting::kSearch}, {"aten::bucketize", Sorting::kSearch},
    {"aten::nonzero", Sorting::kPlaces},      {"aten::cumsum", Sorting::kScan},
    {"aten::cumsum_", Sorting::kScan},        {"aten::cumprod", Sorting::kScan},
    {"aten::_cummax_helper", Sorting::kScan}, {"aten::_cummin_helper", Sorting::kScan},
    {"aten::_logcumsumexp", Sorting::kScan},  {"aten::logcumsumexp", Sorting::kScan}};

const Names kCudnnAskingOperators{"aten::_use_cudnn_ctc_loss", "aten::_batch_norm_with_update",
                                  "aten::_batch_norm_with_update_functional", "aten::batch_norm_backward"};

const std::unordered_map<std::string_view, RowKernel> kRowKernels{
    {"aten::_softmax", RowKernel::kSoftmax},
    {"aten::_log_softmax", RowKernel::kSoftmax},
    {"aten::_softmax_backward_data", RowKernel::kSoftmaxBackward},
    {"aten::_log_softmax_backward_data", RowKernel::kSoftmaxBackward},
    {"aten::sum", RowKernel::kReduction},
    {"aten::mean", RowKernel::kReduction},
    {"aten::var", RowKernel::kReduction},
    {"aten::var_mean", RowKernel::kReduction},
    {"aten::amax", RowKernel::kReduction},
    {"aten::native_layer_norm", RowKernel::kNorm},
    {"aten::_fused_rms_norm", RowKernel::kNorm},
    {"aten::native_group_norm", RowKernel::kReadTwice},
    {"aten::native_group_norm_backward", RowKernel::kBackwardReadsTwice},
    {"aten::native_batch_norm", RowKernel::kReadTwice},
    {"aten::native_batch_norm_backward", RowKernel::kBackwardReadsTwice},
    {"aten::_cdist_forward", RowKernel::kPairs},
    {"aten::native_layer_norm_backward", RowKernel::kNormBackward},
    {"aten::_fused_rms_norm_backward", RowKernel::kNormBackward}};

const Names kMovingOperators{"aten::_foreach_copy_", "aten::split_with_sizes_copy", "aten::_chunk_cat", "aten::cat"};

bool is_moving(std::string_view base) {
  return kMovingOperators.contains(base) || base.starts_with("fsdp::") || base.starts_with("c10d::") ||
         base.starts_with("_c10d_functional::");
}

int argument_named(const c10::FunctionSchema& schema, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto index = schema.argumentIndexWithName(name)) return *index;
  }
  return -1;
}

void read_sorting(const c10::FunctionSchema& schema, std::string_view base, OperatorFacts& facts) {
  const auto found = kSortingOperators.find(base);
  if (found == kSortingOperators.end()) return;
  facts.sorting = found->second;
  facts.sorted_dim = argument_named(schema, {"dim"});
  facts.searched = base == "aten::searchsorted" ? 1 : 0;
}

AttentionArguments attention_arguments(const c10::FunctionSchema& schema, std::string_view base) {
  AttentionArguments at;
  at.query = static_cast<std::size_t>(argument_named(schema, {"query"}));
  at.key = static_cast<std::size_t>(argument_named(schema, {"key"}));
  at.value = static_cast<std::size_t>(argument_named(schema, {"value"}));
  at.causal = static_cast<std::size_t>(argument_named(schema, {"is_causal", "custom_mask_type"}));
  at.begins = argument_named(schema, {"cum_seq_k", "cu_seqlens_k"});
  at.longest = argument_named(schema, {"max_k", "max_seqlen_k"});
  at.is_backward = base.ends_with("_backward");
  at.is_cudnn = base.starts_with("aten::_cudnn");
  return at;
}

}  // namespace

void read_costs(const c10::FunctionSchema& schema, std::string_view base, OperatorFacts& facts) {
  facts.is_embedding = base == "aten::embedding";
  read_sorting(schema, base, facts);
  if (base == "aten::_conv_depthwise2d" || base == "aten::conv_depthwise3d") facts.depthwise = Depthwise::kForward;
  if (base == "aten::convolution_backward") facts.depthwise = Depthwise::kBackward;
  facts.is_left_by_cudnn = base.starts_with("aten::cudnn_batch_norm") || base.starts_with("aten::cudnn_grid_sampler");
  facts.asks_for_cudnn = kCudnnAskingOperators.contains(base);
  facts.joins = base == "aten::cat";
  facts.is_foreach = base.starts_with("aten::_foreach_");
  const auto rows = kRowKernels.find(base);
  if (rows != kRowKernels.end()) facts.rows = rows->second;
  if (base == "aten::native_batch_norm") facts.trains = argument_named(schema, {"training"});
  facts.is_grouped_product = kGroupedProducts.contains(base);
  facts.updates_parameters = base.starts_with("aten::_fused_ad") ||
                             base.starts_with("aten::_fused_sgd") ||
                             base == "aten::addcdiv_" || base == "aten::_foreach_addcdiv_";
  facts.moves = is_moving(base);
  if (kLookingUpOperators.contains(base)) {
    // A loss has a `weight`, too: of classes, and few. What it looks into are the logarithms.
    const bool is_loss = base.starts_with("aten::nll_loss");
    facts.looked_up = is_loss ? argument_named(schema, {"self"})
                              : argument_named(schema, {"weight", "self", "input"});
    // Zeros, which are filled in by another operator, and a value in each row.
    facts.scatters = is_loss && base.ends_with("_backward");
  }
  if (kShapeOnlyOperators.contains(base)) facts.shape_only = argument_named(schema, {"self"});
  const auto placing = kPlacingOperators.find(base);
  if (placing != kPlacingOperators.end()) facts.placing = placing->second;
  facts.is_bag = base == "aten::_embedding_bag" || base == "aten::_embedding_bag_forward_only";
  if (kAttentionOperators.contains(base)) facts.attention = attention_arguments(schema, base);
}

}  // namespace ebbtide::dryrun
