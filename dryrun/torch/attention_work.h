// What an attention operator asks of the device: two products forward, five backward, of the pairs
// of query and key that it looks at, and what its kernels spend beside them.
#pragma once

#include <ATen/core/ivalue.h>

#include "dryrun/core/work.h"
#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// `arguments` are those of an operator with `facts.attention`. Its bytes are not counted here.
Work attention_work(const AttentionArguments& at, const c10::IValue* arguments);

}  // namespace ebbtide::dryrun
