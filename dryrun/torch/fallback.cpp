// The companion: sees every operator below autograd, runs it on the simulated device as it is, and
// puts the values of integer and boolean results there as the host computes them.
//
// It stands on a dispatch key that torch reserves for out-of-tree use, switched on per thread;
// autograd's threads inherit it. Which blocks a device operator allocates, and in which order,
// stays torch's own.
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <functional>
#include <memory>

#include "dryrun/core/capture.h"
#include "dryrun/core/report.h"
#include "dryrun/core/simulator.h"
#include "dryrun/core/stream.h"
#include "dryrun/torch/absent_library.h"
#include "dryrun/torch/agreement.h"
#include "dryrun/torch/captured_call.h"
#include "dryrun/torch/compute.h"
#include "dryrun/torch/cudnn_use.h"
#include "dryrun/torch/operator_call.h"
#include "dryrun/torch/operator_work.h"
#include "dryrun/torch/python_dispatch.h"
#include "dryrun/torch/sparse_places.h"
#include "dryrun/torch/step_watch.h"
#include "dryrun/torch/torch_report.h"

namespace ebbtide::dryrun {

namespace {

constexpr c10::DispatchKey kKey = c10::DispatchKey::Fake;

void carry_out(const Call& call, const CallTensors& tensors, ContextScope& scope, const OperatorWork& work,
               StreamClock* launched_on) {
  compute(call, tensors, scope);
  const OperatorContext& context = operator_context();
  if (context.launches == 0) return;
  Simulator::instance().timeline().run(launched_on == nullptr ? *context.stream : *launched_on,
                                       work.with_results(*call.stack, call.facts.return_count, context.launches),
                                       context.is_in_backward, context.name);
}

// A graph's operators are of the steps in which it is launched, not of the one in which it was captured.
void tell_watch(const StepSign& sign) {
  StreamClock* capturing = capturing_stream();
  if (capturing == nullptr) {
    watch_step(sign);
  } else {
    Captures::instance().add(*capturing, [sign](StreamClock&) { watch_step(sign); });
  }
}

// On a stream that captures an operator allocates, and queues what it queues, but computes nothing: that is
// done by each launch of the graph, on tensors over the same memory.
void capture_operator(const Call& call, const CallTensors& tensors, StreamClock& stream) {
  CapturedCall captured(call.op, call.facts, call.arguments());
  {
    const Captures::Inside inside(captured.parts());
    const ContextScope scope(call.facts, tensors);
    call.run();
    captured.note_results(*call.stack, operator_context().launches, is_in_backward());
  }
  Captures::instance().add(stream, [captured = std::make_shared<CapturedCall>(std::move(captured))](StreamClock& on) {
    captured->launch(on, [&](Stack& stack, const std::function<void()>& parts) {
      OperatorFacts& facts = captured->facts();
      const Call again{captured->op(), facts, {}, &stack, facts.roles.size(), &parts};
      const CallTensors over = collect_tensors(facts, stack, facts.roles.size());
      const OperatorWork work(facts, stack, facts.roles.size());
      ContextScope scope(facts, over);
      operator_context().launches = captured->launches();
      operator_context().is_in_backward = captured->is_in_backward() || is_beside_training();
      carry_out(again, over, scope, work, &on);
    });
  });
}

// Sums what a sparse tensor holds at the same places. The kernel reads back how many differ.
void run_coalesce(const Call& call, const CallTensors& tensors) {
  const std::int64_t count = different_places(call.stack->back().toTensor());
  ContextScope scope(call.facts, tensors);
  scope.be_quiet(count);
  const OperatorWork work(call.facts, *call.stack, call.argument_count);
  call.run();
  const OperatorContext& context = operator_context();
  if (context.launches > 0) {
    note_work(c10::cuda::getCurrentCUDAStream().stream(),
              work.with_results(*call.stack, call.facts.return_count, context.launches));
  }
}

void run_operator(const Call& call) {
  const CallTensors tensors = collect_tensors(call.facts, *call.stack, call.argument_count);
  if (call.facts.joins_places) {
    run_coalesce(call, tensors);
    return;
  }
  if (tensors.is_foreign || (call.facts.has_tensor_arguments && !tensors.on_device)) {
    call.run();
    return;
  }
  const bool is_outermost = operator_context().name == nullptr;
  Timeline& timeline = Simulator::instance().timeline();
  if (is_outermost) timeline.host_works(timeline.speed().operator_seconds);
  if (StreamClock* capturing = capturing_stream(); capturing != nullptr) {
    capture_operator(call, tensors, *capturing);
    return;
  }
  const OperatorWork work(call.facts, *call.stack, call.argument_count);
  ContextScope scope(call.facts, tensors);
  carry_out(call, tensors, scope, work, nullptr);
}

void run_telling(const Call& call) {
  try {
    run_operator(call);
  } catch (const c10::Error& error) {
    tell_absent_library(error.what_without_backtrace());
    throw;
  }
}

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  if (is_for_python(op, keys)) {
    run_in_python(op, stack, kKey);
    return;
  }
  const c10::DispatchKeySet below =
      keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kKey);
  OperatorFacts& facts = facts_of(op);
  const CudnnAbsent cudnn(facts.asks_for_cudnn);
  // A meta tensor may say that it is on a device (FakeTensor).
  const bool is_host_only =
      keys.has_backend(c10::BackendComponent::MetaBit) ||
      (facts.has_tensor_arguments && !keys.has_backend(c10::BackendComponent::CUDABit));
  if (!is_host_only && facts.is_left_by_cudnn && run_without_cudnn(op, stack)) return;
  if (!is_host_only && (facts.is_embedding || facts.kind != OperatorKind::kTransparent) &&
      operator_context().name == nullptr) {
    tell_watch(step_sign(facts, *stack));
  }
  std::optional<bool> answer;
  if (facts.agrees && !is_host_only) answer = agreement(facts, *stack);
  if (facts.kind == OperatorKind::kTransparent || is_host_only) {
    op.redispatchBoxed(below, stack);
  } else {
    run_telling({op, facts, below, stack, facts.roles.size()});
  }
  if (answer) stack->back() = *answer;
}

Deed watch_kernel() {
  return [sign = step_sign_of_kernel()](StreamClock&) { watch_step(sign); };
}

struct Setup {
  Setup() {
    set_up_cudnn();
    set_report_section(&torch_report);
    set_live_bytes(&torch_live_bytes);
    set_launch_watch(&watch_kernel);
  }
} setup;

}  // namespace

}  // namespace ebbtide::dryrun

TORCH_LIBRARY_IMPL(_, Fake, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&ebbtide::dryrun::fallback>());
}

// Called by the runtime's stand-in from every thread that works on a device.
extern "C" EBBTIDE_DRYRUN_API void ebbtide_dryrun_enter_thread() {
  using ebbtide::dryrun::kKey;
  static const bool is_bare = ebbtide::dryrun::Simulator::instance().settings().is_bare;
  if (is_bare) return;
  if (!c10::impl::tls_is_dispatch_key_included(kKey)) {
    c10::impl::tls_set_dispatch_key_included(kKey, true);
  }
}
