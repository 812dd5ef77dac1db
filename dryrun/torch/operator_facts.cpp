#include "dryrun/torch/operator_facts.h"

#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "dryrun/torch/operator_costs.h"
#include "dryrun/torch/outcomes.h"

namespace ebbtide::dryrun {

namespace {

using Names = std::unordered_set<std::string_view>;

// Change what a tensor is, not what its memory holds; or only keep memory alive.
const Names kMetadataOperators{
    "aten::set_",          "aten::resize_",   "aten::resize_as_",  "aten::_resize_output_",
    "aten::record_stream", "aten::is_pinned", "aten::_pin_memory", "aten::is_set_to"};
const Names kEmptyOperators{"aten::empty", "aten::empty_strided", "aten::_empty_affine_quantized"};
const Names kSizeDecidingOperators{"aten::nonzero",    "aten::_unique",
                                   "aten::_unique2",   "aten::unique_consecutive",
                                   "aten::unique_dim", "aten::unique_dim_consecutive"};
const Names kOverwritingOperators{"aten::fill_",       "aten::random_",     "aten::bernoulli_",
                                  "aten::normal_",     "aten::uniform_",    "aten::exponential_",
                                  "aten::log_normal_", "aten::geometric_",  "aten::cauchy_"};
// Cheap on the host, and used on small known data: positions, masks, scales. Without the trailing
// "_".
const Names kFloatOperators{
    "aten::fill",        "aten::arange",    "aten::linspace",     "aten::eye",     "aten::cat",
    "aten::where",       "aten::add",       "aten::sub",          "aten::mul",     "aten::div",
    "aten::neg",         "aten::pow",       "aten::reciprocal",   "aten::sqrt",    "aten::rsqrt",
    "aten::exp",         "aten::log",       "aten::sin",          "aten::cos",     "aten::abs",
    "aten::masked_fill", "aten::tril",      "aten::triu",         "aten::gather",  "aten::index",
    "aten::clamp",       "aten::clamp_min", "aten::clamp_max",    "aten::minimum", "aten::maximum",
    "aten::sum",         "aten::cumsum",    "aten::index_select", "aten::floor",   "aten::ceil",
    "aten::round",       "aten::trunc",     "aten::flip",         "aten::roll",    "aten::max",
    "aten::min",         "aten::amax",      "aten::amin",         "aten::prod",        "aten::_amp_update_scale"};

const Names kComparingOperators{"aten::eq", "aten::ne", "aten::lt", "aten::le",      "aten::gt",
                                "aten::ge", "aten::isnan", "aten::isinf", "aten::isposinf", "aten::isneginf", "aten::signbit"};
// Which result of theirs holds indices; "dim" is the argument's name in all of them.
const std::unordered_map<std::string_view, std::size_t> kChoices{
    {"aten::topk", 1},   {"aten::sort", 1},   {"aten::max", 1},       {"aten::min", 1},
    {"aten::mode", 1},   {"aten::median", 1}, {"aten::nanmedian", 1}, {"aten::kthvalue", 1},
    {"aten::argmax", 0}, {"aten::argmin", 0}, {"aten::multinomial", 0}};

// Element by element, and not tagged as such.
const Names kPointwiseOperators{"aten::masked_fill_", "aten::masked_fill"};
void read_values(const c10::FunctionSchema& schema, std::string_view base, OperatorFacts& facts) {
  facts.compares = kComparingOperators.contains(base);
  facts.is_equality = base == "aten::equal";
  facts.agrees = facts.is_equality || base == "aten::allclose";
  facts.is_check = base == "aten::_is_all_true";
  facts.holds_of_equals = base == "aten::ge" || base == "aten::le";
  facts.checks_finite = base == "aten::_amp_foreach_non_finite_check_and_unscale_";
  facts.follows_typical = base == "aten::_amp_update_scale_";
  facts.counts_as_double = base == "aten::histc";
  const auto found = kChoices.find(base);
  if (found == kChoices.end() || facts.writes || schema.returns().size() <= found->second) return;
  const auto dim = schema.argumentIndexWithName("dim");
  facts.choice = Choice{found->second, dim ? *dim : -1};
}

bool returns_only_views(const c10::FunctionSchema& schema) {
  if (schema.returns().empty()) return false;
  for (const c10::Argument& result : schema.returns()) {
    if (result.alias_info() == nullptr || result.alias_info()->isWrite()) return false;
  }
  return true;
}

void read_arguments(const c10::FunctionSchema& schema, OperatorFacts& facts) {
  for (const c10::Argument& argument : schema.arguments()) {
    const bool is_written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    const std::string type = argument.type()->str();
    facts.has_tensor_arguments |= type.find("Tensor") != std::string::npos;
    facts.has_generator |= type.find("Generator") != std::string::npos;
    facts.writes |= is_written;
    facts.roles.push_back(!is_written         ? ArgumentRole::kRead
                          : argument.is_out() ? ArgumentRole::kOut
                                              : ArgumentRole::kWritten);
  }
}

OperatorKind kind_of(const c10::OperatorHandle& op, const OperatorFacts& facts) {
  const std::string& base = op.operator_name().name;
  if (base == "aten::copy_") return OperatorKind::kCopy;
  if (base == "aten::_local_scalar_dense") return OperatorKind::kRead;
  const bool has_kernel = op.hasKernelForDispatchKey(c10::DispatchKey::CUDA);
  if (!has_kernel || kMetadataOperators.contains(base) || op.hasTag(at::Tag::inplace_view) ||
      (!facts.writes && returns_only_views(op.schema()))) {
    return OperatorKind::kTransparent;
  }
  if (kEmptyOperators.contains(base)) return OperatorKind::kEmpty;
  if (base == "aten::fill_" && op.operator_name().overload_name == "Scalar")
    return OperatorKind::kFill;
  if (base == "aten::zero_") return OperatorKind::kTransparent;  // becomes a fill or a cudaMemset
  return OperatorKind::kCompute;
}

std::unique_ptr<OperatorFacts> make_facts(const c10::OperatorHandle& op) {
  auto facts = std::make_unique<OperatorFacts>();
  facts->name = c10::toString(op.operator_name());
  facts->return_count = op.schema().returns().size();
  read_arguments(op.schema(), *facts);
  facts->kind = kind_of(op, *facts);
  // Others' operators may have side effects: they are not called a second time on the host.
  facts->fails_on_cpu = !op.operator_name().name.starts_with("aten::");
  if (facts->fails_on_cpu && !facts->writes) facts->kind = OperatorKind::kTransparent;
  facts->is_pointwise =
      op.hasTag(at::Tag::pointwise) || kPointwiseOperators.contains(op.operator_name().name);
  facts->draws_random = op.hasTag(at::Tag::nondeterministic_seeded);
  std::string_view base = op.operator_name().name;
  read_costs(op.schema(), base, *facts);
  if (base.starts_with("aten::_cudnn_")) facts->fails_on_cpu = true;  // and what it keeps as bytes are no integers
  read_values(op.schema(), base, *facts);
  if (facts->is_check) facts->kind = OperatorKind::kCompute;  // made of others, but its answer is its own
  read_outcomes(op.schema(), *facts);
  facts->overwrites = kOverwritingOperators.contains(base);
  facts->joins_places = base == "aten::_coalesce";
  if (facts->joins_places) facts->kind = OperatorKind::kCompute;  // its kernel is sparse tensors' own
  facts->decides_size = kSizeDecidingOperators.contains(base);
  if (base.ends_with('_')) base.remove_suffix(1);
  facts->computes_floats = kFloatOperators.contains(base);
  return facts;
}

}  // namespace

OperatorFacts& facts_of(const c10::OperatorHandle& op) {
  // The schema lives as long as the operator is registered, and is its identity here.
  static thread_local std::unordered_map<const c10::FunctionSchema*, OperatorFacts*> seen;
  const c10::FunctionSchema* key = &op.schema();
  const auto found = seen.find(key);
  if (found != seen.end()) return *found->second;
  static std::mutex mutex;
  static auto* all =
      new std::unordered_map<const c10::FunctionSchema*, std::unique_ptr<OperatorFacts>>();
  const std::lock_guard lock(mutex);
  std::unique_ptr<OperatorFacts>& facts = (*all)[key];
  if (facts == nullptr) facts = make_facts(op);
  seen.emplace(key, facts.get());
  return *facts;
}

}  // namespace ebbtide::dryrun
