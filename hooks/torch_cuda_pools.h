// Which requests are a pool's (MemPool, the private pool of a CUDA graph), and whether a graph is being captured.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace ebbtide {

// Upstream asks each pool's filter whether a request is its own, and so does this. A capture that fails is never closed by
// torch: its filter answers no from then on.
//
// While a graph is captured, on whatever stream and thread, requests are all upstream's and nothing may be synchronised:
// what is asked of the driver could make the capture invalid.
//
// Thread-safe; its lock is innermost but for the driver's.
class TorchCudaPools {
 public:
  using Device = c10::DeviceIndex;
  using Pool = c10::MempoolId_t;
  using Filter = std::function<bool(cudaStream_t)>;

  // `stream`: the one that is current; a capture will be of this stream.
  void open(Device device, Pool pool, Filter filter, cudaStream_t stream);
  void close(Device device, Pool pool);

  // Cheap; false mostly.
  bool has_any() const { return count_.load(std::memory_order_relaxed) > 0; }
  // Whether a request of this thread must not be served from an arena.
  bool claims(Device device, cudaStream_t stream);
  bool is_capturing();
  // The same, and whether this thread's stream is captured without a pool: then nothing may be synchronised.
  bool is_anything_captured();

 private:
  struct Open {
    Device device;
    Pool pool;
    Filter filter;
    cudaStream_t stream;
    unsigned long long capture = 0;  // of the stream, once it was seen to be the pool's; 0: not yet
  };

  bool is_over(Open& open);
  void forget_what_is_over();

  std::atomic<std::size_t> count_{0};
  std::mutex lock_;  // guards the following
  std::vector<Open> open_;
};

}  // namespace ebbtide
