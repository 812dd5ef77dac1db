// What a program asks to be sure of its values: whether two tensors hold the same (torch.equal) or nearly so
// (torch.allclose), whether all is as a distribution wants it, whether a box ends behind where it begins.
#pragma once

#include <optional>

#include "dryrun/torch/host_call.h"

namespace ebbtide::dryrun {

// What the operator should answer, by its arguments, the last ones on the stack: yes where no kernel has computed
// one of them, so that checks of a result pass. Nothing where its own answer is right. Requires: facts.agrees.
std::optional<bool> agreement(const OperatorFacts& facts, const Stack& stack);

// Whether a result of booleans is true throughout because no kernel has computed what it says something about: of an
// operator whose answer only a check wants to know, and of "not less" or "not greater" between two tensors of one shape,
// which equal ones are. Drawn numbers are compared with "less", and with tensors of other shapes, as before.
bool passes_unknown(const OperatorFacts& facts, const Stack& arguments);

}  // namespace ebbtide::dryrun
