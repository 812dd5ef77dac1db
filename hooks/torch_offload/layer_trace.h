// A layer's part in a trace (EBBTIDE_TRACE), as python_shim/ebbtide/_offload/_layer_tally.py tells it of Python's layers.
#pragma once

#include <cstdint>

#include "hooks/torch_offload/state.h"

namespace ebbtide::offload {

// While it lives, what its thread allocates and swaps belongs to the layer; at its end the trace is told what became of the
// layer's saved tensors since the last time. Without a trace it does nothing. One thread at a time for one layer.
class LayerTrace {
 public:
  LayerTrace(const State& state, Tally& tally);
  ~LayerTrace();
  LayerTrace(const LayerTrace&) = delete;
  LayerTrace& operator=(const LayerTrace&) = delete;

 private:
  Tally& tally_;
  const int device_;
  std::uint32_t before_ = 0;  // whose the thread's allocations were
};

}  // namespace ebbtide::offload
