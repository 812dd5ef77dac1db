// An operator's call, repeated on CPU tensors over the device's memory.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/stack.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <optional>
#include <vector>

#include "dryrun/core/contents.h"
#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

using torch::jit::Stack;

// Keeps host calls out of autograd, modes, profiles and our own fallback.
class HostScope {
 public:
  HostScope();
  ~HostScope();
  HostScope(const HostScope&) = delete;
  HostScope& operator=(const HostScope&) = delete;

 private:
  at::AutoDispatchBelowADInplaceOrView below_autograd_;
  c10::impl::ExcludeDispatchKeyGuard below_us_;
  at::DisableRecordFunctionGuard unrecorded_;
};

// The tensors among a call's arguments.
struct CallTensors {
  bool on_device = false;           // at least one plain device tensor
  bool is_foreign = false;          // a tensor that the companion does not understand
  bool is_computable = true;        // all of them are small enough
  bool has_large_integers = false;  // integers among those that are not; masks of booleans are common
  std::vector<at::Tensor> written;  // in-place and out arguments on a device
  const c10::TensorImpl* first = nullptr;
};

CallTensors collect_tensors(const OperatorFacts& facts, const Stack& stack,
                            std::size_t argument_count);

// Whether what keeps such a call from the host is only the size of floating-point tensors that it
// reads: typical values can stand for them.
bool is_computable_from_typical(const OperatorFacts& facts, const Stack& arguments);

// Whether all that a call reads from the device was really computed.
bool reads_only_computed(const OperatorFacts& facts, const Stack& arguments);

// Results of a call on the host, and what they are worth.
struct HostResults {
  std::vector<at::Tensor> returned;  // flattened over lists; empty for in-place and out operators
  std::vector<at::Tensor> written;   // beside CallTensors::written
  Content content = Content::kComputed;
};

// Computes the call on the host; the device's memory is read, not written. Nothing when the
// operator cannot be computed there. `arguments` are the operator's arguments, device tensors and
// all.
std::optional<HostResults> call_on_host(const c10::OperatorHandle& op, OperatorFacts& facts,
                                        const Stack& arguments);

// Puts a host result under a device tensor and marks it. Requires: same sizes.
void write_result(const at::Tensor& target, const at::Tensor& result, Content content);

}  // namespace ebbtide::dryrun
