// What is freed while upstream is asked for memory, on the same thread.
#pragma once

#include <vector>

namespace ebbtide {

// Upstream runs callbacks with its own lock held (c10::FreeMemoryCallback; torch's for tensors that were shared with other
// processes), and those free blocks. To free one of ours takes the engine's lock and that of the statistics, whose holders may
// be waiting for upstream's: so such blocks are put aside, and freed once upstream has answered.
//
// Note [Order of locks] growth_ and then lock_ of an Engine; the attics' lock; lock_ of TorchCudaStatistics; upstream's own;
// then those that are innermost: the engine's shards and TorchCudaPools', whose holders wait for nobody. Nobody who has
// upstream's lock may wait for one before it.
//
// One for each call of upstream that may allocate. Costs two additions to what belongs to the thread.
class UpstreamCall {
 public:
  UpstreamCall() { ++state_.depth; }
  ~UpstreamCall() { --state_.depth; }
  UpstreamCall(const UpstreamCall&) = delete;
  UpstreamCall& operator=(const UpstreamCall&) = delete;

  // True when the calling thread is inside such a call: the block is put aside then.
  static bool put_aside(void* address) {
    if (__builtin_expect(state_.depth == 0, 1)) return false;
    keep(address);
    return true;
  }
  // Whether the calling thread is inside such a call.
  static bool is_on() { return state_.depth > 0; }
  // Whether take() has something to give. Not inside a call.
  static bool has_put_aside() { return __builtin_expect(state_.blocks != nullptr, 0); }
  // What the thread put aside, for its caller to free. Requires: it holds none of the locks above.
  static std::vector<void*> take();

 private:
  struct State {
    int depth;
    std::vector<void*>* blocks;  // null mostly
  };

  static void keep(void* address);

  // Initial-exec: it is asked for by every free, and small enough for libraries that are loaded late.
  static constinit thread_local State state_ __attribute__((tls_model("initial-exec")));
};

}  // namespace ebbtide
