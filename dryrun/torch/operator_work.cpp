#include "dryrun/torch/operator_work.h"

#include <algorithm>

#include "dryrun/torch/attention_work.h"
#include "dryrun/torch/element_loop.h"
#include "dryrun/torch/number_kind.h"
#include "dryrun/torch/placed_bytes.h"
#include "dryrun/torch/row_passes.h"
#include "dryrun/torch/sorting_work.h"

namespace ebbtide::dryrun {

namespace {

using torch::jit::Stack;

// Kernels over lists of tensors reach 0.58 to 0.68 of an H100's bandwidth in bfloat16 (AdamW's of 1.33 G
// parameters in the trace of Llama 3.2 of Note [Passes over rows]), of the 0.84 that others reach.
constexpr double kNarrowForeachBytes = 0.84 / 0.63;

// Bytes of memory under a tensor: an expanded dimension repeats what is there.
double bytes_of(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda() || tensor.layout() != at::kStrided) return 0;
  double elements = 1;
  for (std::int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (tensor.stride(dim) != 0 || tensor.size(dim) == 0)
      elements *= static_cast<double>(tensor.size(dim));
  }
  return elements * static_cast<double>(tensor.element_size());
}

double bytes_of(const c10::IValue& value) {
  if (value.isTensor()) return bytes_of(value.toTensor());
  double bytes = 0;
  if (value.isTensorList()) {
    const c10::List<at::Tensor> list = value.toTensorList();
    for (const at::Tensor& tensor : list) bytes += bytes_of(tensor);
  } else if (value.isOptionalTensorList()) {
    const auto list = value.toOptionalTensorList();
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::optional<at::Tensor> tensor = list.get(i);
      if (tensor) bytes += bytes_of(*tensor);
    }
  }
  return bytes;
}

bool lie_in_one_place(const at::Tensor& a, const at::Tensor& b) {
  for (const at::Tensor* tensor : {&a, &b}) {
    if (!tensor->defined() || !tensor->is_cuda() || tensor->layout() != at::kStrided) return false;
  }
  return a.unsafeGetTensorImpl()->data() == b.unsafeGetTensorImpl()->data() &&
         a.sizes() == b.sizes() && a.strides() == b.strides();
}

// Lists of one length are of one operator: the first tensor tells.
bool are_the_same(const c10::List<at::Tensor>& a, const c10::List<at::Tensor>& b) {
  return !a.empty() && a.size() == b.size() && lie_in_one_place(a.get(0), b.get(0));
}

// The same tensor once more (a square's two factors): it is in the cache when it is read again.
bool is_again(const c10::IValue* arguments, std::size_t i) {
  for (std::size_t j = 0; j < i; ++j) {
    const c10::IValue &a = arguments[j], &b = arguments[i];
    if (a.isTensor() && b.isTensor() && lie_in_one_place(a.toTensor(), b.toTensor())) return true;
    const bool are_lists = a.isTensorList() && b.isTensorList();
    if (are_lists && are_the_same(a.toTensorList(), b.toTensorList())) return true;
  }
  return false;
}

bool is_of_narrow(const c10::IValue& list) {
  if (!list.isTensorList() || list.toTensorList().empty()) return false;
  return list.toTensorList().get(0).element_size() == 2;
}

double elements_of(const c10::IValue& value) {
  return value.isTensor() ? static_cast<double>(value.toTensor().numel()) : 0;
}

// One product for each group: of rows (2D x 3D), of columns (3D x 2D), or of what is summed over (2D x
// 2D). Where the groups end does not matter: together they have all of it.
Work grouped_product(const c10::IValue* arguments) {
  const at::Tensor a = arguments[0].toTensor();
  const at::Tensor b = arguments[1].toTensor();
  const double groups = a.dim() == 3 && b.dim() == 3 ? static_cast<double>(a.size(0)) : 1;
  const double pairs = static_cast<double>(a.size(-2)) * static_cast<double>(b.size(-1));
  return {.activity = Activity::kMatrix,
          .flops = groups * 2 * pairs * static_cast<double>(a.size(-1)),
          .numbers = numbers_of(a.scalar_type())};
}

// Each number of the result sums up a window of one channel, on no tensor cores.
void make_depthwise(const at::Tensor& result, const at::Tensor& weight, double times, Work& work) {
  const double window = static_cast<double>(weight.numel()) / static_cast<double>(std::max<std::int64_t>(1, weight.size(0)));
  work.activity = Activity::kMatrix;
  work.flops = times * 2 * static_cast<double>(result.numel()) * window;
  work.numbers = result.scalar_type() == at::kDouble ? NumberKind::kFloat64 : NumberKind::kFloat32;
}

// Where torch's own kernels do the whole of a convolution's backward, it is one of each channel by itself: as many sums
// again for each gradient. (Others are made of operators that are seen one by one, or cuDNN's.)
void make_depthwise_backward(const c10::IValue* arguments, Work& work) {
  const at::Tensor &gradient = arguments[0].toTensor(), &weight = arguments[2].toTensor();
  if (!gradient.defined() || !weight.defined() || weight.dim() < 3 || weight.size(1) != 1) return;
  const c10::List<bool> wanted = arguments[10].toBoolList();
  make_depthwise(gradient, weight, static_cast<double>(wanted.get(0)) + static_cast<double>(wanted.get(1)), work);
}

}  // namespace

OperatorWork::OperatorWork(const OperatorFacts& facts, const Stack& stack,
                           std::size_t argument_count)
    : facts_(facts) {
  const c10::IValue* arguments = stack.data() + (stack.size() - argument_count);
  if (facts.attention) work_ = attention_work(*facts.attention, arguments);
  if (facts.is_grouped_product) work_ = grouped_product(arguments);
  if (facts.depthwise == Depthwise::kBackward) make_depthwise_backward(arguments, work_);
  if (facts.depthwise == Depthwise::kForward) depthwise_weight_ = arguments[1].toTensor();
  add_row_passes(facts, arguments, work_);
  add_sorting(facts, arguments, argument_count, work_);
  if (facts.placing == Placing::kIndices) work_.bytes += sorted_places_bytes(arguments);
  takes_single_elements_ = takes_single_elements(facts, arguments, argument_count);
  if (facts.is_foreach && is_of_narrow(arguments[0])) byte_factor_ = kNarrowForeachBytes;
  for (std::size_t i = 0; i < argument_count; ++i) {
    const bool is_elsewise = static_cast<int>(i) == facts.looked_up || static_cast<int>(i) == facts.shape_only;
    const bool may_be_again = (facts.is_pointwise || facts.is_foreach) && facts.roles[i] == ArgumentRole::kRead;
    if (is_elsewise || (may_be_again && is_again(arguments, i))) continue;
    const double bytes = i == 0 && facts.placing != Placing::kNone ? placed_bytes(facts, arguments)
                         : i == 0 && facts.is_bag                  ? bag_bytes(arguments)
                                                                   : bytes_of(arguments[i]);
    const bool is_overwritten = facts.overwrites || facts.kind == OperatorKind::kCopy;
    const bool is_read = facts.roles[i] == ArgumentRole::kRead ||
                         (facts.roles[i] == ArgumentRole::kWritten && !is_overwritten);
    const bool is_written = facts.roles[i] != ArgumentRole::kRead;
    is_shaped_later_ |= facts.roles[i] == ArgumentRole::kOut && arguments[i].isTensor() && elements_of(arguments[i]) == 0;
    work_.bytes += byte_factor_ * bytes * (static_cast<int>(is_read) + static_cast<int>(is_written));
    if (is_written) add_written(arguments[i], work_);
  }
}

// What writing a tensor takes beyond its bytes.
void OperatorWork::add_written(const c10::IValue& value, Work& work) const {
  if (takes_single_elements_) work.single_elements += elements_of(value);
  // As much as is written is looked up.
  if (facts_.looked_up >= 0 && !facts_.scatters) work.bytes += bytes_of(value);
}

Work OperatorWork::with_results(const Stack& stack, std::size_t result_count, int launches) const {
  Work work = work_;
  work.launches = launches;
  if (depthwise_weight_.defined()) make_depthwise(stack[stack.size() - result_count].toTensor(), depthwise_weight_, 1, work);
  if ((facts_.writes && !is_shaped_later_) || facts_.scatters) return work;
  for (std::size_t i = stack.size() - result_count; i < stack.size(); ++i) {
    work.bytes += byte_factor_ * bytes_of(stack[i]);
    add_written(stack[i], work);
  }
  return work;
}

}  // namespace ebbtide::dryrun
