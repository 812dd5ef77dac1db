#include "dryrun/torch/captured_call.h"

#include <ATen/core/List.h>
#include <ATen/ops/from_blob.h>
#include <c10/cuda/CUDAStream.h>

#include "dryrun/core/stream.h"
#include "dryrun/torch/device_tensor.h"
#include "dryrun/torch/host_call.h"

namespace ebbtide::dryrun {

namespace {

// The same elements, without a share in their memory.
at::Tensor unowned(const at::Tensor& tensor) {
  if (!is_plain_device_tensor(tensor)) return tensor;
  const HostScope scope;
  auto* begin = const_cast<void*>(tensor.unsafeGetTensorImpl()->data());
  return at::for_blob(begin, tensor.sizes())
      .strides(tensor.strides())
      .options(tensor.options().requires_grad(false))
      .target_device(tensor.device())
      .make_tensor();
}

c10::IValue unowned(const c10::IValue& value) {
  if (value.isTensor()) return unowned(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(unowned(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    const auto from = value.toOptionalTensorList();
    for (std::size_t i = 0; i < from.size(); ++i) {
      const std::optional<at::Tensor> tensor = from.get(i);
      list.push_back(tensor ? std::optional(unowned(*tensor)) : std::nullopt);
    }
    return list;
  }
  return value;
}

}  // namespace

StreamClock* capturing_stream() {
  if (!Captures::instance().any()) return nullptr;
  StreamClock& stream = clock_of(c10::cuda::getCurrentCUDAStream().stream());
  return Captures::instance().view(stream).id != 0 ? &stream : nullptr;
}

CapturedCall::CapturedCall(const c10::OperatorHandle& op, OperatorFacts& facts, const Stack& arguments)
    : op_(op), facts_(facts) {
  for (const c10::IValue& value : arguments) arguments_.push_back(unowned(value));
}

void CapturedCall::note_results(const Stack& stack, int launches, bool is_in_backward) {
  for (std::size_t i = stack.size() - facts_.return_count; i < stack.size(); ++i) {
    results_.push_back(unowned(stack[i]));
  }
  launches_ = launches;
  is_in_backward_ = is_in_backward;
}

void CapturedCall::launch(StreamClock& stream, const Run& run) const {
  Stack stack = arguments_;
  const std::function<void()> parts = [&] {
    for (const Deed& part : parts_) part(stream);
    stack = results_;
  };
  run(stack, parts);
}

}  // namespace ebbtide::dryrun
