// What an operation graph asks for, if it is attention's.
#pragma once

#include <cstdint>
#include <optional>

#include "dryrun/cudnn/descriptor.h"

namespace ebbtide::dryrun {

struct AttentionPlan {
  std::int64_t workspace_bytes = 0;  // of the backend; torch's frontend adds its own
  int launches = 1;
};

// None for other graphs.
//
// The bytes are those of cuDNN 9.19's own plans for an H200: 256 forward; backward as many, and where each head
// of keys and values serves several of queries the gradients of each of these, before they are added up
// (`tests/python/test_dryrun_cudnn.py`).
std::optional<AttentionPlan> plan_attention(const Descriptor& operation_graph);

}  // namespace ebbtide::dryrun
