// Memory that cuDNN's recurrent layers ask for: weights, workspaces, and what the backward needs of the forward.
#pragma once

#include <cstdint>

#include "dryrun/cudnn/recurrent_layer.h"

namespace ebbtide::dryrun {

// A matrix, or the bias that goes with it, in numbers: `offset` from the first one.
struct WeightPlace {
  std::int64_t offset = 0, rows = 0, columns = 0;
};

// All matrices come first, layer by layer (each direction one of its own), and all biases behind them. `index`: the
// gates' matrices for the input, then those for the state, then a projection, which has no bias.
WeightPlace matrix_place(const RecurrentLayer& layer, std::int64_t which, std::int64_t index);
WeightPlace bias_place(const RecurrentLayer& layer, std::int64_t which, std::int64_t index);
std::int64_t weight_count(const RecurrentLayer& layer);

struct RecurrentSpaces {
  std::int64_t workspace_bytes = 0, reserve_bytes = 0;
};

// Note [Spaces of recurrent layers]
// What cuDNN 9.19 itself answers for an H200, an A100 and an L40S: it works this out on the host, from the number of
// multiprocessors and the compute capability, without a device. Weights and reserve are its bytes exactly. Workspaces
// are within 1 % of it forward; where the backward wants more, within a quarter (`tests/python/test_dryrun_recurrent.py`).
RecurrentSpaces spaces_of(const RecurrentLayer& layer, const Sequences& sequences, bool trains, int compute_capability);

// States of random numbers for dropout: 24 bytes for each thread that the device runs at once.
std::int64_t dropout_state_bytes(int multiprocessors, int threads_each);

}  // namespace ebbtide::dryrun
