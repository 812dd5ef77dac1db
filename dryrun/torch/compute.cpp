#include "dryrun/torch/compute.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <optional>

#include "dryrun/core/simulator.h"
#include "dryrun/torch/agreement.h"
#include "dryrun/torch/choices.h"
#include "dryrun/torch/outcomes.h"
#include "dryrun/torch/typical_tensor.h"

namespace ebbtide::dryrun {

namespace {

// Floating-point copies onto the device: values are kept only for small tensors.
constexpr std::int64_t kFloatCopyLimit = std::int64_t{1} << 20;

void forget_returned(const Call& call) {
  for_each_returned(call, [](at::Tensor& tensor) {
    if (is_plain_device_tensor(tensor)) mark(tensor, Content::kNotComputed);
    return false;
  });
}

// Counts an operator that counts or chooses among integers, and was too large to be: what reads as zero
// then may lead a program astray (experts without a token) though it reads no value itself. Floating-point
// results would not have been computed either way.
void note_large_integers(const Call& call, const CallTensors& tensors) {
  if (!tensors.has_large_integers || call.facts.fails_on_cpu) return;
  bool has_exact = false;
  for (const at::Tensor& tensor : tensors.written) has_exact = has_exact || is_exact(tensor);
  for_each_returned(call, [&](at::Tensor& tensor) {
    has_exact = has_exact || (is_plain_device_tensor(tensor) && is_exact(tensor));
    return false;
  });
  if (has_exact) ++Simulator::instance().counters().large_integers;
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
    if (!is_plain_device_tensor(tensor) || tensor.numel() == 0) return false;
    has_any = true;
    has_exact = has_exact || is_exact(tensor);
    possible = possible && is_computable(tensor);
    return false;
  });
  if (!has_any || !possible) return false;
  return has_exact || (call.facts.computes_floats && reads_only_computed(call.facts, arguments));
}

void put_true(const Call& call) {
  const at::Tensor passes = call.stack->back().toTensor();
  if (!is_computable(passes)) {
    mark(passes, Content::kNotComputed);
    return;
  }
  const HostScope scope;
  write_result(passes, at::ones({}, at::TensorOptions(at::kBool).device(at::kCPU)), Content::kDerived);
}

void run_functional(const Call& call, const CallTensors& tensors) {
  const OperatorFacts& facts = call.facts;
  if (!facts.choice && !facts.compares && !facts.is_check && (!tensors.is_computable || facts.fails_on_cpu)) {
    call.run();
    forget_returned(call);
    note_large_integers(call, tensors);
    return;
  }
  const Stack arguments = call.arguments();
  if (chooses_among_unknown(call, arguments)) {
    call.run();
    forget_returned(call);
    choose(call, arguments);
    return;
  }
  if (passes_unknown(call.facts, arguments)) {
    call.run();
    put_true(call);
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

// The host could, but not from typical values, and large matrices would keep it for minutes.
void run_factorisation(const Call& call, const CallTensors& tensors) {
  call.run();
  forget_returned(call);
  forget_written(tensors);
  put_outcomes(call);
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
    note_large_integers(call, tensors);
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

}  // namespace

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
  if (!call.facts.successes.empty() || !call.facts.pivots.empty()) {
    run_factorisation(call, tensors);
  } else if (call.facts.writes) {
    run_writing(call, tensors, scope);
  } else if (call.facts.decides_size && tensors.is_computable) {
    run_size_deciding(call, scope);
  } else {
    run_functional(call, tensors);
  }
}

}  // namespace ebbtide::dryrun
