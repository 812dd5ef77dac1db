// Torch's interface, but for what allocates and frees (torch_cuda_serving.cpp), and its installation.
#include "hooks/torch_cuda_adaptor.h"

#include <c10/cuda/CUDAFunctions.h>
#include <c10/util/env.h>

#include <exception>
#include <utility>

#include "hooks/registry.h"
#include "hooks/torch_adaptor.h"
#include "hooks/torch_cuda_device.h"
#include "hooks/torch_cuda_history.h"
#include "hooks/torch_cuda_stream.h"

namespace ebbtide {
namespace {

// Above torch's own registration (0, in newer versions 1).
constexpr std::uint8_t kPriority = 10;

// As torch reads its switches: anything but "1" is off.
bool is_set_to_one(const char* variable) { return c10::utils::get_env(variable) == "1"; }

}  // namespace

CudaAdaptor* CudaAdaptor::instance = nullptr;

CudaAdaptor::CudaAdaptor(native::CUDAAllocator& upstream)
    : CudaForwarder(upstream),
      devices_(upstream, pools_),
      is_forced_uncached_(is_set_to_one("PYTORCH_NO_CUDA_MEMORY_CACHING")),
      is_caching_(upstream.isEnabled()),
      stacks_(TorchStacks::make(Registry::get())),
      insistence_(upstream, devices_, pools_, stacks_.get(), &delete_block) {}

void CudaAdaptor::add_devices(int device_count) { devices_.add_up_to(device_count, kSmallestPlanned); }

void CudaAdaptor::init(int device_count) {
  upstream_.init(device_count);
  add_devices(device_count);
  watch_upstream();
}

void CudaAdaptor::watch_upstream() {
  EventSink* sink = Registry::get().sink();
  // Leaked: upstream keeps it.
  if (sink != nullptr && watch_ == nullptr) {
    watch_ = new TorchCudaWatch(*sink);
    watch_->attach(upstream_);
    insistence_.attach(watch_);
  }
  Registry::get().record_device_activity();
}

// As upstream does: whoever allocates so is not seen by the engine.
void* CudaAdaptor::raw_alloc(std::size_t count) {
  if (stacks_ != nullptr) stacks_->enter();
  return insistence_.ask({static_cast<std::int64_t>(count)}, [&] { return upstream_.raw_alloc(count); });
}

void* CudaAdaptor::raw_alloc_with_stream(std::size_t count, cudaStream_t stream) {
  if (stacks_ != nullptr) stacks_->enter();
  return insistence_.ask({static_cast<std::int64_t>(count)}, [&] { return upstream_.raw_alloc_with_stream(count, stream); });
}

void CudaAdaptor::recordStream(const c10::DataPtr& block, c10::cuda::CUDAStream stream) {
  if (TorchCudaDevice* own = devices_.owner_of(block.get()); own != nullptr) {
    own->engine().record_stream(block.get(), id_of(stream));
    return;
  }
  if (block.get_deleter() != &delete_block) {
    upstream_.recordStream(block, stream);
    return;
  }
  // Upstream ignores blocks whose deleter is not its own.
  c10::DataPtr plain(block.get(), block.get(), upstream_.raw_deleter(), block.device());
  upstream_.recordStream(plain, stream);
  static_cast<void>(plain.release_context());
}

native::DeviceStats CudaAdaptor::getDeviceStats(Device device) {
  TorchCudaDevice* own = devices_.find(device);
  return own == nullptr ? upstream_.getDeviceStats(device) : own->stats();
}

void CudaAdaptor::resetPeakStats(Device device) {
  TorchCudaDevice* own = devices_.find(device);
  if (own == nullptr) return upstream_.resetPeakStats(device);
  own->statistics().reset_peaks();
  own->engine().reset_peak_live();
}

void CudaAdaptor::resetAccumulatedStats(Device device) {
  TorchCudaDevice* own = devices_.find(device);
  if (own == nullptr) return upstream_.resetAccumulatedStats(device);
  own->reset_accumulated_stats();
}

void CudaAdaptor::enable(bool value) {
  upstream_.enable(value);
  is_caching_ = upstream_.isEnabled();
}

// What the program wants back includes what is idle in the arenas.
void CudaAdaptor::emptyCache(Pool pool) {
  if (pool == Pool{0, 0} && !pools_.is_anything_captured()) {
    for (const auto& own : devices_) static_cast<void>(own->engine().release_idle());
  }
  upstream_.emptyCache(pool);
}

native::SnapshotInfo CudaAdaptor::snapshot(Pool pool, bool include_traces) {
  native::SnapshotInfo info = upstream_.snapshot(pool, include_traces);
  for (const auto& own : devices_) {
    if (pool == Pool{0, 0}) own->show_in(info);
  }
  return info;
}

void CudaAdaptor::recordHistory(bool enabled, native::CreateContextFn recorder, std::size_t max_entries, native::RecordContext when,
                   bool clear, const std::vector<std::string>& skip_actions) {
  upstream_.recordHistory(enabled, recorder, max_entries, when, clear, skip_actions);
  for (const auto& own : devices_) own->history().record({enabled, recorder, max_entries, when, clear, skip_actions});
}

// Native's histories carry these along; so do the arenas'.
void CudaAdaptor::setUserMetadata(const std::string& metadata) {
  upstream_.setUserMetadata(metadata);
  for (const auto& own : devices_) own->history().set_user_metadata(metadata);
}

void CudaAdaptor::pushCompileContext(std::string& context) {
  upstream_.pushCompileContext(context);
  TorchCudaHistory::push_compile_context(context);
}

void CudaAdaptor::popCompileContext() {
  upstream_.popCompileContext();
  TorchCudaHistory::pop_compile_context();
}

std::shared_ptr<c10::GatheredContext> CudaAdaptor::getContextForPointer(const void* address) {
  TorchCudaDevice* own = devices_.owner_of(address);
  return own == nullptr ? CudaForwarder::getContextForPointer(address) : own->history().context_of(address);
}

void CudaAdaptor::annotateMemory(const void* address, const std::string& metadata) {
  TorchCudaDevice* own = devices_.owner_of(address);
  if (own == nullptr) return CudaForwarder::annotateMemory(address, metadata);
  own->history().annotate(address, own->engine().block_at(address).size, metadata);
}

void CudaAdaptor::attachOutOfMemoryObserver(native::OutOfMemoryObserver observer) { insistence_.attach(std::move(observer)); }

void* CudaAdaptor::getBaseAllocation(void* address, std::size_t* size) {
  TorchCudaDevice* own = devices_.owner_of(address);
  if (own == nullptr) return upstream_.getBaseAllocation(address, size);
  return upstream_.getBaseAllocation(const_cast<void*>(own->engine().base()), size);
}

native::ShareableHandle CudaAdaptor::shareIpcHandle(void* address) {
  TorchCudaDevice* own = devices_.owner_of(address);
  return own == nullptr ? upstream_.shareIpcHandle(address) : own->share(address);
}

void CudaAdaptor::beginAllocateToPool(Device device, Pool pool, std::function<bool(cudaStream_t)> filter) {
  pools_.open(device, pool, filter, c10::cuda::getCurrentCUDAStream(device).stream());
  upstream_.beginAllocateToPool(device, pool, std::move(filter));
}

void CudaAdaptor::endAllocateToPool(Device device, Pool pool) {
  upstream_.endAllocateToPool(device, pool);
  pools_.close(device, pool);
}

native::CheckpointDelta CudaAdaptor::setCheckpointPoolState(Device device, std::shared_ptr<native::AllocatorState> state) {
  native::CheckpointDelta delta = upstream_.setCheckpointPoolState(device, std::move(state));
  for (c10::DataPtr& block : delta.dataptrs_allocd) {
    static_cast<void>(block.compare_exchange_deleter(upstream_.raw_deleter(), &delete_block));
  }
  return delta;
}

namespace {

ebbtide_status install() {
  native::CUDAAllocator* upstream = native::allocator.load();
  // Other backends have neither segments nor blocks that an arena could be made of.
  if (upstream == nullptr || upstream->name() != "native") return EBBTIDE_UNSUPPORTED;
  CudaAdaptor::instance = new CudaAdaptor(*upstream);
  if (upstream->initialized()) {
    CudaAdaptor::instance->add_devices(c10::cuda::device_count());
    CudaAdaptor::instance->watch_upstream();
  }
  native::allocator.store(CudaAdaptor::instance);
  c10::SetAllocator(c10::DeviceType::CUDA, CudaAdaptor::instance, kPriority);
  return EBBTIDE_OK;
}

}  // namespace
}  // namespace ebbtide

ebbtide_status ebbtide_torch_cuda_install(void) {
  try {
    return ebbtide::CudaAdaptor::instance == nullptr ? ebbtide::install() : EBBTIDE_OK;
  } catch (const std::exception&) {
    return EBBTIDE_SYSTEM;
  }
}
