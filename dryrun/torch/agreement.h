// Whether two tensors hold the same (torch.equal) or nearly so (torch.allclose), where a program asks.
#pragma once

#include <optional>

#include "dryrun/torch/host_call.h"

namespace ebbtide::dryrun {

// What the operator should answer, by its arguments, the last ones on the stack: yes where no kernel has computed
// one of them, so that checks of a result pass. Nothing where its own answer is right. Requires: facts.agrees.
std::optional<bool> agreement(const OperatorFacts& facts, const Stack& stack);

}  // namespace ebbtide::dryrun
