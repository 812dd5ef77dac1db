#include "hooks/torch_cuda_forwarder.h"

namespace ebbtide {
namespace {

// Calls that exist in some versions of torch only are looked for where the type is a parameter.
void mark_capture_begin(auto& upstream, CudaForwarder::Device device) {
  if constexpr (requires { upstream.markCaptureBegin(device); }) upstream.markCaptureBegin(device);
}

void mark_capture_end(auto& upstream, CudaForwarder::Device device) {
  if constexpr (requires { upstream.markCaptureEnd(device); }) upstream.markCaptureEnd(device);
}

std::shared_ptr<c10::GatheredContext> context_for(auto& upstream, const void* address) {
  if constexpr (requires { upstream.getContextForPointer(address); }) return upstream.getContextForPointer(address);
  return nullptr;
}

bool supports_user_metadata(auto& upstream) {
  if constexpr (requires { upstream.supportsUserMetadata(); }) return upstream.supportsUserMetadata();
  return false;
}

void annotate_memory(auto& upstream, const void* address, const std::string& metadata) {
  if constexpr (requires { upstream.annotateMemory(address, metadata); }) upstream.annotateMemory(address, metadata);
}

void attach_rejection_observer(auto& upstream, native::OutOfMemoryObserver observer) {
  if constexpr (requires { upstream.attachOomRejectionObserver(observer); }) {
    upstream.attachOomRejectionObserver(std::move(observer));
  }
}

c10::DataPtr allocate_with_address(auto& upstream, std::size_t size, void* address) {
  if constexpr (requires { upstream.allocateWithAddress(size, address); }) return upstream.allocateWithAddress(size, address);
  TORCH_CHECK(false, upstream.name(), " does not yet support allocateWithAddress.");
}

}  // namespace

c10::DataPtr CudaForwarder::allocate(std::size_t count) { return upstream_.allocate(count); }

c10::DeleterFnPtr CudaForwarder::raw_deleter() const { return upstream_.raw_deleter(); }

void CudaForwarder::copy_data(void* to, const void* from, std::size_t count) const { upstream_.copy_data(to, from, count); }
bool CudaForwarder::is_simple_data_ptr(const c10::DataPtr& pointer) const { return upstream_.is_simple_data_ptr(pointer); }

bool CudaForwarder::initialized() { return upstream_.initialized(); }

void CudaForwarder::emptyCache(Pool pool) { upstream_.emptyCache(pool); }

native::DeviceStats CudaForwarder::getDeviceStats(Device device) { return upstream_.getDeviceStats(device); }

void CudaForwarder::resetAccumulatedStats(Device device) { upstream_.resetAccumulatedStats(device); }

void CudaForwarder::resetPeakStats(Device device) { upstream_.resetPeakStats(device); }

std::pair<std::size_t, std::size_t> CudaForwarder::getMemoryInfo(Device device) { return upstream_.getMemoryInfo(device); }

void* CudaForwarder::raw_alloc(std::size_t count) { return upstream_.raw_alloc(count); }

void* CudaForwarder::raw_alloc_with_stream(std::size_t count, cudaStream_t stream) { return upstream_.raw_alloc_with_stream(count, stream); }

void CudaForwarder::raw_delete(void* address) { upstream_.raw_delete(address); }

void CudaForwarder::init(int device_count) { upstream_.init(device_count); }

double CudaForwarder::getMemoryFraction(Device device) { return upstream_.getMemoryFraction(device); }

void CudaForwarder::setMemoryFraction(double fraction, Device device) { upstream_.setMemoryFraction(fraction, device); }

std::vector<native::StreamSegmentSize> CudaForwarder::getExpandableSegmentSizes(Device device) { return upstream_.getExpandableSegmentSizes(device); }

void CudaForwarder::enable(bool value) { upstream_.enable(value); }

bool CudaForwarder::isEnabled() const { return upstream_.isEnabled(); }

void CudaForwarder::cacheInfo(Device device, std::size_t* largest) { upstream_.cacheInfo(device, largest); }

void* CudaForwarder::getBaseAllocation(void* address, std::size_t* size) { return upstream_.getBaseAllocation(address, size); }

void CudaForwarder::recordStream(const c10::DataPtr& block, c10::cuda::CUDAStream stream) { upstream_.recordStream(block, stream); }

native::SnapshotInfo CudaForwarder::snapshot(Pool pool, bool include_traces) { return upstream_.snapshot(pool, include_traces); }

void CudaForwarder::beginAllocateToPool(Device device, Pool pool,
                                        std::function<bool(cudaStream_t)> filter) { upstream_.beginAllocateToPool(device, pool, std::move(filter)); }

void CudaForwarder::endAllocateToPool(Device device, Pool pool) { upstream_.endAllocateToPool(device, pool); }

void CudaForwarder::releasePool(Device device, Pool pool) { upstream_.releasePool(device, pool); }

int CudaForwarder::getPoolUseCount(Device device, Pool pool) { return upstream_.getPoolUseCount(device, pool); }

void CudaForwarder::createOrIncrefPool(Device device, Pool pool,
                                       std::shared_ptr<native::CUDAAllocator> allocator) { upstream_.createOrIncrefPool(device, pool, std::move(allocator)); }

void CudaForwarder::setUseOnOOM(Device device, Pool pool, bool use_on_oom) { upstream_.setUseOnOOM(device, pool, use_on_oom); }

void CudaForwarder::setNoSplit(Device device, Pool pool) { upstream_.setNoSplit(device, pool); }

bool CudaForwarder::checkPoolLiveAllocations(Device device, Pool pool,
                                             const std::unordered_set<void*>& expected) { return upstream_.checkPoolLiveAllocations(device, pool, expected); }

native::ShareableHandle CudaForwarder::shareIpcHandle(void* address) { return upstream_.shareIpcHandle(address); }

std::shared_ptr<void> CudaForwarder::getIpcDevPtr(std::string handle) { return upstream_.getIpcDevPtr(std::move(handle)); }

bool CudaForwarder::isHistoryEnabled() { return upstream_.isHistoryEnabled(); }

void CudaForwarder::recordHistory(bool enabled, native::CreateContextFn recorder,
                                  std::size_t max_entries, native::RecordContext when, bool clear,
                                  const std::vector<std::string>& skip_actions) { upstream_.recordHistory(enabled, recorder, max_entries, when, clear, skip_actions); }

void CudaForwarder::recordAnnotation(
    const std::vector<std::pair<std::string, std::string>>& annotation) { upstream_.recordAnnotation(annotation); }

void CudaForwarder::pushCompileContext(std::string& context) { upstream_.pushCompileContext(context); }

void CudaForwarder::popCompileContext() { upstream_.popCompileContext(); }

void CudaForwarder::setUserMetadata(const std::string& metadata) { upstream_.setUserMetadata(metadata); }

std::string CudaForwarder::getUserMetadata() { return upstream_.getUserMetadata(); }

void CudaForwarder::attachOutOfMemoryObserver(native::OutOfMemoryObserver observer) { upstream_.attachOutOfMemoryObserver(std::move(observer)); }

void CudaForwarder::attachAllocatorTraceTracker(native::AllocatorTraceTracker tracker) { upstream_.attachAllocatorTraceTracker(std::move(tracker)); }

void CudaForwarder::enablePeerAccess(Device device, Device peer) { upstream_.enablePeerAccess(device, peer); }

cudaError_t CudaForwarder::memcpyAsync(void* to, int to_device, const void* from, int from_device,
                                       std::size_t count, cudaStream_t stream, bool p2p_enabled) { return upstream_.memcpyAsync(to, to_device, from, from_device, count, stream, p2p_enabled); }

std::shared_ptr<native::AllocatorState> CudaForwarder::getCheckpointState(Device device, Pool pool) { return upstream_.getCheckpointState(device, pool); }

native::CheckpointDelta CudaForwarder::setCheckpointPoolState(
    Device device, std::shared_ptr<native::AllocatorState> state) { return upstream_.setCheckpointPoolState(device, std::move(state)); }

void CudaForwarder::markCaptureBegin(Device device) { mark_capture_begin(upstream_, device); }

void CudaForwarder::markCaptureEnd(Device device) { mark_capture_end(upstream_, device); }

std::shared_ptr<c10::GatheredContext> CudaForwarder::getContextForPointer(const void* address) { return context_for(upstream_, address); }

bool CudaForwarder::supportsUserMetadata() { return supports_user_metadata(upstream_); }

void CudaForwarder::annotateMemory(const void* address, const std::string& metadata) { annotate_memory(upstream_, address, metadata); }

void CudaForwarder::attachOomRejectionObserver(native::OutOfMemoryObserver observer) { attach_rejection_observer(upstream_, std::move(observer)); }

c10::DataPtr CudaForwarder::allocateWithAddress(std::size_t size, void* address) { return allocate_with_address(upstream_, size, address); }

std::string CudaForwarder::name() { return upstream_.name(); }

}  // namespace ebbtide
