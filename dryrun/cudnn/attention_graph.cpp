#include "dryrun/cudnn/attention_graph.h"

#include <functional>
#include <numeric>

#include "dryrun/cudnn/data_type.h"

namespace ebbtide::dryrun {

namespace {

constexpr std::int64_t kOwnBytes = 256;
// CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, which older headers lack.
constexpr auto kAttentionForward = static_cast<cudnnBackendDescriptorType_t>(41);
constexpr std::size_t kHeads = 1;  // the dimension of heads: batch, heads, tokens, size

// Bytes of gradients of each query's head that this operation adds up to those of its head of keys or
// values; 0 if it is another operation.
std::int64_t bytes_added_up(const Descriptor& operation) {
  const DescriptorRef from = operation.descriptor(CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
  const DescriptorRef to = operation.descriptor(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
  if (from == nullptr || to == nullptr) return 0;
  const std::vector<std::int64_t> many = from->numbers(CUDNN_ATTR_TENSOR_DIMENSIONS);
  const std::vector<std::int64_t> few = to->numbers(CUDNN_ATTR_TENSOR_DIMENSIONS);
  if (many.size() <= kHeads || few.size() <= kHeads || many[kHeads] == few[kHeads]) return 0;
  const std::int64_t numbers =
      std::accumulate(many.begin(), many.end(), std::int64_t{1}, std::multiplies<>());
  return numbers * bytes_of_number(from->enumerator(CUDNN_ATTR_TENSOR_DATA_TYPE));
}

}  // namespace

std::optional<AttentionPlan> plan_attention(const Descriptor& operation_graph) {
  AttentionPlan plan{.workspace_bytes = kOwnBytes};
  int products = 0;
  for (const DescriptorRef& operation : operation_graph.descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
    // Versions of the frontend that are newer say it as one operation.
    if (operation->type() == kAttentionForward) return plan;
    if (operation->type() == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) ++products;
    if (operation->type() != CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR) continue;
    const std::int64_t bytes = bytes_added_up(*operation);
    plan.workspace_bytes += bytes;
    plan.launches += bytes > 0 ? 1 : 0;
  }
  if (products < 2) return std::nullopt;  // scores, and their product with the values
  // Backward: before it the rows' sums, after it the gradient of the queries in their own type.
  if (products > 2) plan.launches += 2;
  return plan;
}

}  // namespace ebbtide::dryrun
