// Attention over the whole length, run once, its graph held without q, k, v and without its output.
#pragma once

#include <functional>
#include <optional>
#include <unordered_set>

#include "hooks/torch_offload/recorder.h"
#include "hooks/torch_offload/tape.h"

namespace ebbtide::offload {

// Any attention: what its backward needs beside q, k, v and its output (a log-sum-exp, a mask) is
// in a store. Views of q, k, v and of the output are only noted, and put back for backward.
class SavedAttention {
 public:
  // The output. Nothing of the parts is held afterwards.
  at::Tensor forward(const std::function<at::Tensor(const Tensors&)>& attention,
                     const Tensors& parts, Store& store,
                     const std::unordered_set<StorageId>& externals);
  const LandingHandle& out_landing() const { return out_landing_; }
  void prefetch();
  // q, k, v for backward, with the bits that forward had.
  void put_back(const Tensors& parts);
  // Gradients of q, k, v and of `parameters`. The output lies in its landing. Lets go of
  // everything.
  Tape::Gradients backward(const at::Tensor& dout, const Tensors& parameters);

 private:
  std::vector<LandingHandle> part_landings_;
  LandingHandle out_landing_;
  std::optional<Tape> tape_;
  SavedHandles saved_;
};

// The output alone, for attention that runs again in backward: computed as in training, since torch may have another
// kernel, with other bits, where no graph is made. Nothing is held.
at::Tensor attend_as_in_training(const std::function<at::Tensor(const Tensors&)>& attention,
                                 const Tensors& parts,
                                 const std::unordered_set<StorageId>& externals);

}  // namespace ebbtide::offload
