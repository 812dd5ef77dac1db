#include "dryrun/torch/choices.h"

#include "dryrun/torch/typical_tensor.h"

namespace ebbtide::dryrun {

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

}  // namespace ebbtide::dryrun
