#include "dryrun/torch/agreement.h"

#include <ATen/ops/equal.h>

#include "dryrun/torch/device_tensor.h"

namespace ebbtide::dryrun {

namespace {

bool is_plain(const c10::IValue& value) { return value.isTensor() && is_plain_device_tensor(value.toTensor()); }

bool is_unknown(const at::Tensor& tensor) {
  return tensor.is_cuda() && (!is_computable(tensor) || content_of(tensor) == Content::kNotComputed);
}

at::Tensor on_host(const at::Tensor& tensor) {
  return tensor.is_cuda() ? host_alias(tensor, /*materialise=*/false) : tensor;
}

}  // namespace

std::optional<bool> agreement(const OperatorFacts& facts, const Stack& stack) {
  const std::size_t count = facts.roles.size();
  if (collect_tensors(facts, stack, count).is_foreign) return {};
  const c10::IValue* arguments = stack.data() + (stack.size() - count);
  const at::Tensor& a = arguments[0].toTensor();
  const at::Tensor& b = arguments[1].toTensor();
  if (is_unknown(a) || is_unknown(b)) return facts.is_equality ? a.sizes() == b.sizes() : true;
  // Its kernel compares without asking the dispatcher, so that nobody has computed what it reads.
  if (!facts.is_equality) return {};
  const HostScope scope;
  return at::equal(on_host(a), on_host(b));
}

bool passes_unknown(const OperatorFacts& facts, const Stack& arguments) {
  if (facts.is_check) {
    return is_plain(arguments[0]) && content_of(arguments[0].toTensor()) != Content::kComputed;
  }
  if (!facts.holds_of_equals || !is_plain(arguments[0]) || !is_plain(arguments[1])) return false;
  const at::Tensor a = arguments[0].toTensor(), b = arguments[1].toTensor();
  return a.sizes() == b.sizes() && !is_exact(a) && !is_exact(b) && is_unknown(a) && is_unknown(b);
}

}  // namespace ebbtide::dryrun
