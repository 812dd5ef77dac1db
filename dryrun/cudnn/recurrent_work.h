// What cuDNN's recurrent layers take of a device's time.
#pragma once

#include "dryrun/cudnn/handle.h"
#include "dryrun/cudnn/recurrent_layer.h"

namespace ebbtide::dryrun {

enum class RecurrentPass { kForward, kData, kWeights };

// Note [Time of recurrent layers]
// What needs no earlier step is one large product for each layer: gates of the inputs, the gradient of these, the
// gradient of the weights. The rest goes step by step: a product of the states, and a kernel for the gates, which are
// small, so that a step mostly takes the two shortest kernels. Layers begin as soon as those below them have a step, so
// that all are at work at once, and so are both directions (Appleyard, Kocisky, Blunsom: Optimizing Performance of
// Recurrent Neural Networks on GPUs, arXiv 1604.01946); the layers of two directions wait for each other. Weights of a
// layer are read again in each step unless they stay in the L2 cache. Where one kernel goes through all steps
// (persistent) a step is assumed to take one shortest kernel, for all of its threads to meet.
void note_recurrent(const cudnnContext& handle, const RecurrentLayer& layer, const Sequences& sequences, RecurrentPass pass);

}  // namespace ebbtide::dryrun
