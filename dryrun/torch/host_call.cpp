#include "dryrun/torch/host_call.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/List.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "dryrun/core/simulator.h"
#include "dryrun/torch/device_tensor.h"
#include "dryrun/torch/typical_tensor.h"

namespace ebbtide::dryrun {

namespace {

constexpr std::uint64_t kSeed = 20241207;

// Random integers come from a generator of ours: the program's own CPU generator must not advance.
at::Generator host_generator() {
  static thread_local at::Generator generator = at::detail::createCPUGenerator(kSeed);
  return generator;
}

template <typename Visit>
void for_each_tensor(const c10::IValue& value, Visit&& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) visit(value.toTensor());
  } else if (value.isTensorList()) {
    const c10::List<at::Tensor> list = value.toTensorList();
    for (const at::Tensor& tensor : list) visit(tensor);
  } else if (value.isOptionalTensorList()) {
    const auto list = value.toOptionalTensorList();
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::optional<at::Tensor> tensor = list.get(i);
      if (tensor) visit(*tensor);
    }
  }
}

void collect_tensor(const at::Tensor& tensor, ArgumentRole role, CallTensors& tensors) {
  if (!tensor.defined() || tensor.device().is_cpu()) return;
  if (!is_plain_device_tensor(tensor)) {
    tensors.is_foreign = true;
    return;
  }
  if (tensors.first == nullptr) tensors.first = tensor.unsafeGetTensorImpl();
  tensors.on_device = true;
  const bool is_small = is_computable(tensor);
  tensors.is_computable = tensors.is_computable && is_small;
  tensors.has_large_integers |= !is_small && c10::isIntegralType(tensor.scalar_type(), /*includeBool=*/false);
  if (role != ArgumentRole::kRead) tensors.written.push_back(tensor);
}

// Turns the device tensors among a call's arguments into host tensors.
class HostArguments {
 public:
  HostArguments(const OperatorFacts& facts, HostResults& results)
      : facts_(facts), results_(results) {}

  c10::IValue convert(const c10::IValue& value, ArgumentRole role) {
    if (value.isTensor()) return convert_tensor(value.toTensor(), role);
    if (value.isDevice()) return c10::Device(c10::kCPU);
    if (value.isGenerator()) return host_generator();
    if (value.isTensorList()) return convert_list(value.toTensorList(), role);
    if (value.isOptionalTensorList()) return convert_optional_list(value.toOptionalTensorList());
    return value;
  }

 private:
  at::Tensor convert_tensor(const at::Tensor& tensor, ArgumentRole role) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    if (role == ArgumentRole::kOut) {
      results_.written.push_back(
          at::empty({0}, tensor.options().device(at::kCPU).requires_grad(false)));
      return results_.written.back();
    }
    if (role == ArgumentRole::kWritten && facts_.overwrites) {
      results_.written.push_back(host_alias(tensor, /*materialise=*/false).clone());
      return results_.written.back();
    }
    if (role == ArgumentRole::kRead && !is_computable(tensor) &&
        content_of(tensor) != Content::kComputed) {
      results_.content = Content::kDerived;
      return typical_like(tensor);
    }
    results_.content = std::min(results_.content, as_derived(content_of(tensor)));
    at::Tensor alias = host_alias(tensor, /*materialise=*/true);
    if (facts_.counts_as_double && is_exact(tensor)) alias = alias.to(at::kDouble);
    if (role == ArgumentRole::kRead) return alias;
    results_.written.push_back(alias.clone());
    return results_.written.back();
  }

  c10::IValue convert_list(const c10::List<at::Tensor>& list, ArgumentRole role) {
    c10::List<at::Tensor> converted;
    converted.reserve(list.size());
    for (const at::Tensor& tensor : list) converted.push_back(convert_tensor(tensor, role));
    return converted;
  }

  c10::IValue convert_optional_list(const c10::List<std::optional<at::Tensor>>& list) {
    c10::List<std::optional<at::Tensor>> converted;
    converted.reserve(list.size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::optional<at::Tensor> tensor = list.get(i);
      converted.push_back(tensor ? std::optional(convert_tensor(*tensor, ArgumentRole::kRead))
                                 : std::nullopt);
    }
    return converted;
  }

  static Content as_derived(Content content) {
    return content == Content::kComputed ? Content::kComputed : Content::kDerived;
  }

  const OperatorFacts& facts_;
  HostResults& results_;
};

bool is_generator_slot(const c10::Argument& argument) {
  return argument.type()->str().find("Generator") != std::string::npos;
}

}  // namespace

HostScope::HostScope()
    : below_us_(c10::DispatchKeySet({c10::DispatchKey::Fake, c10::DispatchKey::Python,
                                     c10::DispatchKey::PythonTLSSnapshot})) {}
HostScope::~HostScope() = default;

CallTensors collect_tensors(const OperatorFacts& facts, const Stack& stack,
                            std::size_t argument_count) {
  CallTensors tensors;
  const std::size_t begin = stack.size() - argument_count;
  for (std::size_t i = 0; i < argument_count; ++i) {
    for_each_tensor(stack[begin + i], [&](const at::Tensor& tensor) {
      collect_tensor(tensor, facts.roles[i], tensors);
    });
  }
  return tensors;
}

bool is_computable_from_typical(const OperatorFacts& facts, const Stack& arguments) {
  if (!facts.compares) return false;
  // As many as take the limit's bytes in float32: they are put on the host for the call.
  const std::int64_t limit = Simulator::instance().settings().compute_limit.value / 4;
  bool result = true;
  for (const c10::IValue& argument : arguments) {
    for_each_tensor(argument, [&](const at::Tensor& tensor) {
      result = result && tensor.numel() <= limit && !tensor.is_complex();
    });
  }
  return result;
}

bool reads_only_computed(const OperatorFacts& facts, const Stack& arguments) {
  bool result = true;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const bool is_read = facts.roles[i] == ArgumentRole::kRead ||
                         (facts.roles[i] == ArgumentRole::kWritten && !facts.overwrites);
    if (!is_read) continue;
    for_each_tensor(arguments[i], [&](const at::Tensor& tensor) {
      result = result && (!tensor.is_cuda() || content_of(tensor) == Content::kComputed);
    });
  }
  return result;
}

std::optional<HostResults> call_on_host(const c10::OperatorHandle& op, OperatorFacts& facts,
                                        const Stack& arguments) {
  if (facts.fails_on_cpu || (facts.draws_random && !facts.has_generator)) return {};
  const HostScope scope;
  HostResults results;
  try {
    HostArguments host(facts, results);
    Stack stack;
    stack.reserve(arguments.size());
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const bool wants_ours = facts.draws_random && is_generator_slot(op.schema().arguments()[i]);
      stack.push_back(wants_ours ? c10::IValue(host_generator())
                                 : host.convert(arguments[i], facts.roles[i]));
    }
    op.callBoxed(stack);
    if (facts.writes) return results;
    for (const c10::IValue& value : stack) {
      if (value.isTensor()) {
        results.returned.push_back(value.toTensor());
      } else if (value.isTensorList()) {
        for (const at::Tensor& tensor : value.toTensorVector()) results.returned.push_back(tensor);
      }
    }
    return results;
  } catch (const c10::NotImplementedError&) {
    facts.fails_on_cpu = true;
  } catch (const c10::Error&) {
    // Wrong values (an index out of range, say) are the program's affair: on a device they surface
    // later, if at all. The result counts as not computed.
  }
  return {};
}

void write_result(const at::Tensor& target, const at::Tensor& result, Content content) {
  if (target.numel() > 0) {
    const HostScope scope;
    host_alias(target, /*materialise=*/false).copy_(result);
  }
  mark(target, content);
}

}  // namespace ebbtide::dryrun
