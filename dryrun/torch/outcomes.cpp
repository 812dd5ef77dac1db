#include "dryrun/torch/outcomes.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <string_view>

namespace ebbtide::dryrun {

namespace {

// LAPACK counts rows from 1: row i was exchanged with itself.
at::Tensor rows_in_place(const at::Tensor& pivots) {
  const std::int64_t rows = pivots.dim() == 0 ? 1 : pivots.size(-1);
  return at::arange(1, rows + 1, at::TensorOptions(pivots.scalar_type())).expand_as(pivots);
}

}  // namespace

void read_outcomes(const c10::FunctionSchema& schema, OperatorFacts& facts) {
  for (std::size_t i = 0; i < schema.returns().size(); ++i) {
    const std::string_view name = schema.returns()[i].name();
    if (name == "info") facts.successes.push_back(i);
    if (name == "pivots") facts.pivots.push_back(i);
  }
}

void put_outcomes(const Call& call) {
  const HostScope scope;
  const std::size_t begin = call.stack->size() - call.facts.return_count;
  const auto put = [&](std::size_t index, Content content, auto&& value_of) {
    const at::Tensor target = (*call.stack)[begin + index].toTensor();
    if (is_plain_device_tensor(target) && is_exact(target)) write_result(target, value_of(target), content);
  };
  for (const std::size_t index : call.facts.successes) {
    put(index, Content::kComputed, [](const at::Tensor& info) {
      return at::zeros(info.sizes(), at::TensorOptions(info.scalar_type()));
    });
  }
  for (const std::size_t index : call.facts.pivots) put(index, Content::kDerived, rows_in_place);
}

}  // namespace ebbtide::dryrun
