// The engine in front of torch's CUDA caching allocator (reference for the rules: torch's
// c10/cuda/CUDACachingAllocator.h, contracts of allocate, raw_deleter and recordStream).
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "allocator/runtime/engine.h"
#include "hooks/torch_cuda_devices.h"
#include "hooks/torch_cuda_forwarder.h"
#include "hooks/torch_cuda_insistence.h"
#include "hooks/torch_cuda_pools.h"
#include "hooks/torch_cuda_watch.h"
#include "hooks/torch_stacks.h"

namespace ebbtide {

// Requests that upstream serves get its DataPtr unchanged but for the deleter, which reports the end to
// the engine and then calls upstream's. What the engine does not follow keeps upstream's own. What is a pool's (MemPool), and
// while a CUDA graph is captured or caching is switched off everything, is upstream's alone.
//
// raw_deleter() frees whatever allocate() gave, of whatever size and from whomever: programs keep the pointer alone
// and free it so. Blocks of pools carry it as well, because CUDA graph trees compare. Small blocks and
// those that the engine does not follow keep upstream's own, for speed.
//
// Every function of torch's interface may be called by any thread, and throws what upstream throws.
class CudaAdaptor final : public CudaForwarder {
 public:
  explicit CudaAdaptor(native::CUDAAllocator& upstream);
  using CudaForwarder::recordStream;

  // The one that torch calls, once there is one. Leaked: storages keep pointers to it beyond static destructors.
  static CudaAdaptor* instance;

  void add_devices(int device_count);
  void watch_upstream();

  void init(int device_count) override;
  c10::DataPtr allocate(std::size_t count) override;
  void* raw_alloc(std::size_t count) override;
  void* raw_alloc_with_stream(std::size_t count, cudaStream_t stream) override;
  c10::DeleterFnPtr raw_deleter() const override { return &delete_block; }
  void raw_delete(void* address) override { release(address); }
  void recordStream(const c10::DataPtr& block, c10::cuda::CUDAStream stream) override;
  native::DeviceStats getDeviceStats(Device device) override;
  void resetPeakStats(Device device) override;
  void resetAccumulatedStats(Device device) override;
  void enable(bool value) override;
  void emptyCache(Pool pool) override;
  native::SnapshotInfo snapshot(Pool pool, bool include_traces) override;
  void recordHistory(bool enabled, native::CreateContextFn recorder, std::size_t max_entries, native::RecordContext when,
                     bool clear, const std::vector<std::string>& skip_actions) override;
  void setUserMetadata(const std::string& metadata) override;
  void pushCompileContext(std::string& context) override;
  void popCompileContext() override;
  std::shared_ptr<c10::GatheredContext> getContextForPointer(const void* address) override;
  void annotateMemory(const void* address, const std::string& metadata) override;
  void attachOutOfMemoryObserver(native::OutOfMemoryObserver observer) override;
  void* getBaseAllocation(void* address, std::size_t* size) override;
  native::ShareableHandle shareIpcHandle(void* address) override;
  void beginAllocateToPool(Device device, Pool pool, std::function<bool(cudaStream_t)> filter) override;
  void endAllocateToPool(Device device, Pool pool) override;
  native::CheckpointDelta setCheckpointPoolState(Device device, std::shared_ptr<native::AllocatorState> state) override;

 private:
  // Torch's small pool serves up to 1 MiB from segments of 2 MiB, and does it well.
  static constexpr Bytes kSmallestPlanned{kMiB.value + 1};

  // What is served from an arena goes straight through; all else branches off, and is laid apart (see RoundServer).
  c10::DataPtr serve_planned(Bytes size);
  c10::DataPtr serve_on(StreamId stream, TorchCudaDevice& own, Device device, Bytes size);
  c10::DataPtr pass_or_serve(TorchCudaDevice& own, Device device, Bytes size);
  c10::DataPtr pass_or_serve(TorchCudaDevice& own, Device device, Bytes size, StreamId stream);
  // What is small, or is asked for while there are pools, or by a program that wants nothing cached.
  c10::DataPtr serve_apart(Bytes size);
  c10::DataPtr serve_noting_stack(Bytes size);

  // What no plan can serve. `stream`: of no meaning for what is not tracked.
  c10::DataPtr pass(TorchCudaDevice& own, Device device, Bytes size, Engine::Passing passing, StreamId stream);
  c10::DataPtr ask_upstream(Bytes size);
  c10::DataPtr allocate_upstream(TorchCudaDevice& own, Device device, Bytes size, const Engine::Grant& grant);
  c10::DataPtr allocate_observed(TorchCudaDevice& own, Bytes size, StreamId stream);
  c10::DataPtr allocate_untracked(TorchCudaDevice& own, Device device, Bytes size);

  // Whether a request of this size that is no pool's may be an arena's.
  bool is_planned(Bytes size) const;
  bool is_of_pool();
  TorchCudaDevice* current_device(Device& device);
  // What upstream tells of its blocks is told of the arena's, too.
  c10::DataPtr hand_out(void* address, Bytes size, TorchCudaDevice& own, Device device) const;

  static void delete_block(void* address);
  void release(void* address);
  void release_upstream(void* address);
  static void tell_of_release(void* address, TorchCudaDevice& own);

  TorchCudaPools pools_;
  TorchCudaDevices devices_;
  const bool is_forced_uncached_;
  std::atomic<bool> is_caching_;               // as upstream answers, which is asked through here alone
  const std::unique_ptr<TorchStacks> stacks_;  // null: no stacks are wanted
  TorchCudaInsistence insistence_;
  TorchCudaWatch* watch_ = nullptr;            // where there is a trace; set before the first allocation
};

}  // namespace ebbtide
