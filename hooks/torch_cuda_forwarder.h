// Forwards every virtual function of torch's CUDA allocator to another one.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace ebbtide {

namespace native = c10::cuda::CUDACachingAllocator;

// The part of the adaptor that does nothing of its own. Functions are declared without `override`, so
// that one source serves every torch version: what a version does not have is merely not called, and a
// pure virtual function that is missing here does not compile, and a test lists what else is.
class CudaForwarder : public native::CUDAAllocator {
 public:
  explicit CudaForwarder(native::CUDAAllocator& upstream) : upstream_(upstream) {}

  using Pool = c10::MempoolId_t;
  using Device = c10::DeviceIndex;

  virtual c10::DataPtr allocate(std::size_t count);
  virtual c10::DeleterFnPtr raw_deleter() const;
  virtual bool is_simple_data_ptr(const c10::DataPtr& pointer) const;
  virtual void copy_data(void* to, const void* from, std::size_t count) const;

  virtual bool initialized();
  virtual void emptyCache(Pool pool = {0, 0});
  virtual native::DeviceStats getDeviceStats(Device device);
  virtual void resetAccumulatedStats(Device device);
  virtual void resetPeakStats(Device device);
  virtual std::pair<std::size_t, std::size_t> getMemoryInfo(Device device);

  virtual void* raw_alloc(std::size_t count);
  virtual void* raw_alloc_with_stream(std::size_t count, cudaStream_t stream);
  virtual void raw_delete(void* address);
  virtual void init(int device_count);
  virtual double getMemoryFraction(Device device);
  virtual void setMemoryFraction(double fraction, Device device);
  virtual std::vector<native::StreamSegmentSize> getExpandableSegmentSizes(Device device);
  virtual void enable(bool value);
  virtual bool isEnabled() const;
  virtual void cacheInfo(Device device, std::size_t* largest);
  virtual void* getBaseAllocation(void* address, std::size_t* size);
  using native::CUDAAllocator::recordStream;
  virtual void recordStream(const c10::DataPtr& block, c10::cuda::CUDAStream stream);
  virtual native::SnapshotInfo snapshot(Pool pool = {0, 0}, bool include_traces = true);

  virtual void beginAllocateToPool(Device device, Pool pool, std::function<bool(cudaStream_t)> filter);
  virtual void endAllocateToPool(Device device, Pool pool);
  virtual void releasePool(Device device, Pool pool);
  virtual int getPoolUseCount(Device device, Pool pool);
  virtual void createOrIncrefPool(Device device, Pool pool,
                                  std::shared_ptr<native::CUDAAllocator> allocator = nullptr);
  virtual void setUseOnOOM(Device device, Pool pool, bool use_on_oom);
  virtual void setNoSplit(Device device, Pool pool);
  virtual bool checkPoolLiveAllocations(Device device, Pool pool,
                                        const std::unordered_set<void*>& expected);

  virtual native::ShareableHandle shareIpcHandle(void* address);
  virtual std::shared_ptr<void> getIpcDevPtr(std::string handle);
  virtual bool isHistoryEnabled();
  virtual void recordHistory(bool enabled, native::CreateContextFn recorder, std::size_t max_entries,
                             native::RecordContext when, bool clear,
                             const std::vector<std::string>& skip_actions);
  virtual void recordAnnotation(const std::vector<std::pair<std::string, std::string>>& annotation);
  virtual void pushCompileContext(std::string& context);
  virtual void popCompileContext();
  virtual void setUserMetadata(const std::string& metadata);
  virtual std::string getUserMetadata();
  virtual void attachOutOfMemoryObserver(native::OutOfMemoryObserver observer);
  virtual void attachAllocatorTraceTracker(native::AllocatorTraceTracker tracker);
  virtual void enablePeerAccess(Device device, Device peer);
  virtual cudaError_t memcpyAsync(void* to, int to_device, const void* from, int from_device,
                                  std::size_t count, cudaStream_t stream, bool p2p_enabled);
  virtual std::shared_ptr<native::AllocatorState> getCheckpointState(Device device, Pool pool);
  virtual native::CheckpointDelta setCheckpointPoolState(Device device,
                                                         std::shared_ptr<native::AllocatorState> state);
  virtual std::string name();

  // Of later versions; what upstream does not have answers as torch's default does.
  virtual void markCaptureBegin(Device device);
  virtual void markCaptureEnd(Device device);
  virtual std::shared_ptr<c10::GatheredContext> getContextForPointer(const void* address);
  virtual bool supportsUserMetadata();
  virtual void annotateMemory(const void* address, const std::string& metadata);
  virtual void attachOomRejectionObserver(native::OutOfMemoryObserver observer);
  virtual c10::DataPtr allocateWithAddress(std::size_t size, void* address);

 protected:
  native::CUDAAllocator& upstream_;
};

}  // namespace ebbtide
