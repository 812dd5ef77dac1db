// The companion: sees every operator below autograd, runs it on the simulated device as it is, and
// puts the values of integer and boolean results there as the host computes them.
//
// It stands on a dispatch key that torch reserves for out-of-tree use, switched on per thread;
// autograd's threads inherit it. Which blocks a device operator allocates, and in which order,
// stays torch's own.
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include <functional>
#include <memory>
#include <string_view>

#include "dryrun/core/capture.h"
#include "dryrun/core/operator_context.h"
#include "dryrun/core/report.h"
#include "dryrun/core/simulator.h"
#include "dryrun/torch/captured_call.h"
#include "dryrun/torch/device_tensor.h"
#include "dryrun/torch/host_call.h"
#include "dryrun/torch/operator_facts.h"
#include "dryrun/torch/operator_work.h"
#include "dryrun/torch/python_dispatch.h"
#include "dryrun/torch/step_watch.h"
#include "dryrun/torch/torch_report.h"
#include "dryrun/torch/typical_tensor.h"

namespace ebbtide::dryrun {

namespace {

constexpr c10::DispatchKey kKey = c10::DispatchKey::Fake;
// Floating-point copies onto the device: values are kept only for small tensors.
constexpr std::int64_t kFloatCopyLimit = std::int64_t{1} << 20;

// A forward pass here is a recomputation.
bool is_in_backward() { return torch::autograd::get_current_graph_task_id() != -1; }

// Tells the stand-ins what runs, for as long as it lives.
class ContextScope {
 public:
  ContextScope(const OperatorFacts& facts, const CallTensors& tensors)
      : saved_(operator_context()) {
    OperatorContext& context = operator_context();
    context.name = facts.name.c_str();
    context.subject = tensors.first;
    context.describe = &describe_tensor;
    context.put_typical = &put_typical;
    context.copy_limit = -1;
    context.launches = 0;
    context.is_in_backward = is_in_backward();
    const bool reads_values =
        facts.kind == OperatorKind::kCopy || facts.kind == OperatorKind::kRead;
    context.reads_scratch = !reads_values;
    if (!reads_values) {
      context.is_quiet = false;
      context.scratch_count = -1;
    }
  }
  ~ContextScope() { operator_context() = saved_; }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

  // The results are known already: reads by the operator itself do not matter, except for a count.
  void be_quiet(std::int64_t count) {
    operator_context().is_quiet = true;
    operator_context().scratch_count = count;
  }

 private:
  OperatorContext saved_;
};

struct Call {
  const c10::OperatorHandle& op;
  OperatorFacts& facts;
  c10::DispatchKeySet below;
  Stack* stack;
  std::size_t argument_count;
  const std::function<void()>* replayed = nullptr;  // in a graph's launch: in the operator's place

  void run() const {
    if (replayed != nullptr) return (*replayed)();
    op.redispatchBoxed(below, stack);
  }
  Stack arguments() const {
    return Stack(stack->end() - static_cast<std::ptrdiff_t>(argument_count), stack->end());
  }
};

// The device tensors that the operator has left on the stack; each may be replaced.
template <typename Visit>
void for_each_returned(const Call& call, Visit&& visit) {
  const std::size_t begin = call.stack->size() - call.facts.return_count;
  for (std::size_t i = begin; i < call.stack->size(); ++i) {
    c10::IValue& value = (*call.stack)[i];
    if (value.isTensor()) {
      at::Tensor tensor = value.toTensor();
      if (visit(tensor)) value = tensor;
    } else if (value.isTensorList()) {
      for (at::Tensor tensor : value.toTensorVector()) visit(tensor);
    }
  }
}

void forget_returned(const Call& call) {
  for_each_returned(call, [](at::Tensor& tensor) {
    if (is_plain_device_tensor(tensor)) mark(tensor, Content::kNotComputed);
    return false;
  });
}

// Counts an operator that counts or chooses among integers, and was too large to be: what reads as zero
// then may lead a program astray (experts without a token) though it reads no value itself.
void note_large_integers(const CallTensors& tensors) {
  if (tensors.has_large_integers) ++Simulator::instance().counters().large_integers;
}

// Whether a result's values are wanted, given what the inputs are worth.
bool is_wanted(const OperatorFacts& facts, const at::Tensor& result, Content inputs) {
  if (is_exact(result)) return true;
  const bool is_known = inputs == Content::kComputed || facts.follows_typical;
  return facts.computes_floats && is_known && is_computable(result);
}

void put_returned(const Call& call, const HostResults& results) {
  std::size_t index = 0;
  for_each_returned(call, [&](at::Tensor& tensor) {
    if (index >= results.returned.size()) return false;
    const at::Tensor& result = results.returned[index++];
    if (!is_plain_device_tensor(tensor)) return false;
    if (!result.defined() || !is_wanted(call.facts, tensor, results.content)) {
      mark(tensor, Content::kNotComputed);
      return false;
    }
    const bool is_resized = tensor.sizes() != result.sizes();
    if (is_resized) tensor = at::empty(result.sizes(), tensor.options());
    write_result(tensor, result, results.content);
    return is_resized;
  });
}

// Whether a functional operator is worth computing, seen after it ran.
bool has_wanted_result(const Call& call, const Stack& arguments) {
  bool has_exact = false;
  bool has_any = false;
  bool possible = true;
  for_each_returned(call, [&](at::Tensor& tensor) {
    if (!is_plain_device_tensor(tensor)) return false;
    has_any = true;
    has_exact = has_exact || is_exact(tensor);
    possible = possible && is_computable(tensor);
    return false;
  });
  if (!has_any || !possible) return false;
  return has_exact || (call.facts.computes_floats && reads_only_computed(call.facts, arguments));
}

// Whether an operator chooses among values of which no kernel has computed any.
bool chooses_among_unknown(const Call& call, const Stack& arguments) {
  if (!call.facts.choice || !arguments.front().isTensor()) return false;
  const at::Tensor among = arguments.front().toTensor();
  if (!is_plain_device_tensor(among) || is_exact(among)) return false;
  return !is_computable(among) || content_of(among) != Content::kComputed;
}

void choose(const Call& call, const Stack& arguments) {
  const Choice& choice = *call.facts.choice;
  const std::size_t begin = call.stack->size() - call.facts.return_count;
  const at::Tensor indices = (*call.stack)[begin + choice.result].toTensor();
  if (!is_plain_device_tensor(indices) || !is_computable(indices)) return;
  std::int64_t dim = -1;
  if (choice.dim >= 0) {
    const c10::IValue& argument = arguments[static_cast<std::size_t>(choice.dim)];
    if (argument.isInt()) dim = argument.toInt();
    if (argument.isNone()) {  // of all elements as one row: the first is as good as any
      fill_zero(indices);
      mark(indices, Content::kDerived);
      return;
    }
  }
  put_choices(indices, arguments.front().toTensor(), dim);
}

void run_functional(const Call& call, const CallTensors& tensors) {
  const OperatorFacts& facts = call.facts;
  if (!facts.choice && !facts.compares && (!tensors.is_computable || facts.fails_on_cpu)) {
    call.run();
    forget_returned(call);
    note_large_integers(tensors);
    return;
  }
  const Stack arguments = call.arguments();
  if (chooses_among_unknown(call, arguments)) {
    call.run();
    forget_returned(call);
    choose(call, arguments);
    return;
  }
  const bool is_possible =
      tensors.is_computable || is_computable_from_typical(facts, arguments);
  call.run();
  std::optional<HostResults> results;
  if (is_possible && !facts.fails_on_cpu && has_wanted_result(call, arguments)) {
    results = call_on_host(call.op, call.facts, arguments);
  }
  if (results) {
    put_returned(call, *results);
  } else {
    forget_returned(call);
  }
}

void run_size_deciding(const Call& call, ContextScope& scope) {
  const auto results = call_on_host(call.op, call.facts, call.arguments());
  if (!results) {
    call.run();
    forget_returned(call);
    return;
  }
  scope.be_quiet(results->returned.front().size(0));
  call.run();
  put_returned(call, *results);
}

void forget_written(const CallTensors& tensors) {
  for (const at::Tensor& tensor : tensors.written) mark(tensor, Content::kNotComputed);
}

// In-place and out operators: the host's result is taken before the device operator runs, since
// that may itself be made of operators that write.
void run_writing(const Call& call, const CallTensors& tensors, ContextScope& scope) {
  bool all_exact = true;
  for (const at::Tensor& tensor : tensors.written) all_exact = all_exact && is_exact(tensor);
  std::optional<HostResults> results;
  if (tensors.is_computable && (all_exact || call.facts.computes_floats)) {
    const Stack arguments = call.arguments();
    if (all_exact || call.facts.follows_typical || reads_only_computed(call.facts, arguments)) {
      results = call_on_host(call.op, call.facts, arguments);
    }
  }
  if (!results) {
    call.run();
    forget_written(tensors);
    note_large_integers(tensors);
    if (call.facts.checks_finite) put_found_inf(tensors.written.back());
    return;
  }
  std::int64_t count = -1;
  if (call.facts.decides_size && results->written.front().dim() > 0) {
    count = results->written.front().size(0);
  }
  scope.be_quiet(count);
  call.run();
  for (std::size_t i = 0; i < tensors.written.size(); ++i) {
    const at::Tensor& target = tensors.written[i];
    const at::Tensor& result = results->written[i];
    if (target.sizes() == result.sizes() && is_wanted(call.facts, target, results->content)) {
      write_result(target, result, results->content);
    } else {
      mark(target, Content::kNotComputed);
    }
  }
}

void run_fill(const Call& call, const CallTensors& tensors, ContextScope& scope) {
  const at::Tensor target = tensors.written.front();
  const c10::Scalar value = call.stack->back().toScalar();
  if (!target.is_non_overlapping_and_dense() || value.isComplex() || value.toDouble() != 0.0) {
    run_writing(call, tensors, scope);
    return;
  }
  call.run();
  fill_zero(target);
}

bool is_straight_copy(const at::Tensor& to, const at::Tensor& from) {
  return to.scalar_type() == from.scalar_type() && to.sizes() == from.sizes() &&
         to.strides() == from.strides() && to.is_non_overlapping_and_dense();
}

// Between the host and the device, torch falls back on plain copies of contiguous bytes, which the
// runtime's stand-in carries out. On the device, a kernel converts or gathers: that is done here.
void run_copy(const Call& call) {
  const at::Tensor to = call.stack->end()[-3].toTensor();
  const at::Tensor from = call.stack->end()[-2].toTensor();
  if (to.is_cuda() && !is_exact(to)) operator_context().copy_limit = kFloatCopyLimit;
  call.run();
  if (!is_plain_device_tensor(to) || !is_plain_device_tensor(from)) return;
  if (is_straight_copy(to, from)) return;
  const bool is_possible = is_computable(to) && is_computable(from);
  const Content content = content_of(from);
  if (!is_possible || (!is_exact(to) && content == Content::kNotComputed)) {
    mark(to, Content::kNotComputed);
    return;
  }
  write_result(to, host_alias(from, /*materialise=*/true),
               content == Content::kComputed ? content : Content::kDerived);
}

void compute(const Call& call, const CallTensors& tensors, ContextScope& scope) {
  switch (call.facts.kind) {
    case OperatorKind::kTransparent:
    case OperatorKind::kRead:
      call.run();
      return;
    case OperatorKind::kEmpty:
      call.run();
      forget_returned(call);
      return;
    case OperatorKind::kCopy:
      run_copy(call);
      return;
    case OperatorKind::kFill:
      run_fill(call, tensors, scope);
      return;
    case OperatorKind::kCompute:
      break;
  }
  if (call.facts.writes) {
    run_writing(call, tensors, scope);
  } else if (call.facts.decides_size && tensors.is_computable) {
    run_size_deciding(call, scope);
  } else {
    run_functional(call, tensors);
  }
}

void carry_out(const Call& call, const CallTensors& tensors, ContextScope& scope, const OperatorWork& work,
               StreamClock* launched_on) {
  compute(call, tensors, scope);
  const OperatorContext& context = operator_context();
  if (context.launches == 0) return;
  Simulator::instance().timeline().run(launched_on == nullptr ? *context.stream : *launched_on,
                                       work.with_results(*call.stack, call.facts.return_count, context.launches),
                                       context.is_in_backward, context.name);
}

// On a stream that captures an operator allocates, and queues what it queues, but computes nothing: that is
// done by each launch of the graph, on tensors over the same memory.
void capture_operator(const Call& call, const CallTensors& tensors, StreamClock& stream) {
  CapturedCall captured(call.op, call.facts, call.arguments());
  {
    const Captures::Inside inside(captured.parts());
    const ContextScope scope(call.facts, tensors);
    call.run();
    captured.note_results(*call.stack, operator_context().launches, operator_context().is_in_backward);
  }
  Captures::instance().add(stream, [captured = std::make_shared<CapturedCall>(std::move(captured))](StreamClock& on) {
    captured->launch(on, [&](Stack& stack, const std::function<void()>& parts) {
      OperatorFacts& facts = captured->facts();
      const Call again{captured->op(), facts, {}, &stack, facts.roles.size(), &parts};
      const CallTensors over = collect_tensors(facts, stack, facts.roles.size());
      const OperatorWork work(facts, stack, facts.roles.size());
      ContextScope scope(facts, over);
      operator_context().launches = captured->launches();
      operator_context().is_in_backward = captured->is_in_backward();
      carry_out(again, over, scope, work, &on);
    });
  });
}

void run_operator(const Call& call) {
  const CallTensors tensors = collect_tensors(call.facts, *call.stack, call.argument_count);
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

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  if (is_for_python(op, keys)) {
    run_in_python(op, stack, kKey);
    return;
  }
  const c10::DispatchKeySet below =
      keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kKey);
  OperatorFacts& facts = facts_of(op);
  // A meta tensor may say that it is on a device (FakeTensor).
  const bool is_host_only =
      keys.has_backend(c10::BackendComponent::MetaBit) ||
      (facts.has_tensor_arguments && !keys.has_backend(c10::BackendComponent::CUDABit));
  if (!is_host_only && (facts.is_embedding || facts.kind != OperatorKind::kTransparent) &&
      operator_context().name == nullptr) {
    watch_step(facts, *stack, is_in_backward());
  }
  if (facts.kind == OperatorKind::kTransparent || is_host_only) {
    op.redispatchBoxed(below, stack);
    return;
  }
  run_operator({op, facts, below, stack, facts.roles.size()});
}

std::string_view folder_of(const void* code) {
  Dl_info info{};
  if (code == nullptr || dladdr(code, &info) == 0) return {};
  const std::string_view path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

// Whether the process has this function from a library beside this one.
bool is_stand_in(const char* function) {
  return folder_of(dlsym(RTLD_DEFAULT, function)) == folder_of(reinterpret_cast<const void*>(&is_stand_in));
}

// Of cuDNN, attention is simulated, where its stand-in could be built; torch has other kernels for all else.
struct Setup {
  Setup() {
    at::globalContext().setUserEnabledCuDNN(false);
    if (!is_stand_in("cudnnCreate")) at::globalContext().setSDPUseCuDNN(false);
    set_report_section(&torch_report);
    set_live_bytes(&torch_live_bytes);
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
