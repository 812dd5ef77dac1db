// PyTorch's memory snapshots (torch.cuda.memory._dump_snapshot) as problems.
//
// Time is the index in the device's trace. A buffer lives from its `alloc` to its `free_requested`;
// what was alive before the trace began, or still is at its end, spans it to there. Sizes are what
// torch reserves for them: rounded up to 512 bytes, to which offsets are aligned.
// An id is the index of the alloc, or "before-" and the address.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "allocator/base/result.h"
#include "allocator/plan/problem_csv.h"

namespace ebbtide {

struct SnapshotProblem {
  NamedProblem named;  // has passed check()
  int device = 0;
  std::size_t streams = 0;  // of how many streams its allocations are
};

// Does anything in the bytes look like a pickle rather than text?
bool looks_like_pickle(std::string_view bytes);

// kInvalidArgument with "source: byte N: reason"; also when there are several devices and none was
// chosen, or nothing of the chosen one. Runs no code of the file; see pickle.h for the memory.
Result<SnapshotProblem> read_torch_snapshot(std::string_view bytes, const std::string& source,
                                            std::optional<int> device = std::nullopt);

}  // namespace ebbtide
