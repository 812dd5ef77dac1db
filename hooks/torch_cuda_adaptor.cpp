// The engine in front of torch's CUDA caching allocator (reference for the rules: torch's
// c10/cuda/CUDACachingAllocator.h, contracts of allocate, raw_deleter and recordStream).
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "hooks/registry.h"
#include "hooks/torch_adaptor.h"
#include "hooks/torch_backward.h"
#include "hooks/torch_cuda_attic.h"
#include "hooks/torch_cuda_fences.h"
#include "hooks/torch_cuda_forwarder.h"
#include "hooks/torch_cuda_range.h"

namespace ebbtide {
namespace {

// Torch's small pool serves up to 1 MiB from segments of 2 MiB, and does it well.
constexpr Bytes kSmallestPlanned{kMiB.value + 1};
// Above torch's own registration (0, in newer versions 1).
constexpr std::uint8_t kPriority = 10;
constexpr std::size_t kAggregate = 0;
constexpr std::size_t kLargePool = 2;

StreamId id_of(c10::cuda::CUDAStream stream) {
  return {reinterpret_cast<std::uint64_t>(stream.stream())};
}

// Requests that upstream serves get its DataPtr unchanged but for the deleter, which reports the end to
// the engine and then calls upstream's. While any allocation pool is open (CUDA graph capture, MemPool),
// and while caching is switched off, everything is upstream's alone.
class CudaAdaptor final : public CudaForwarder {
 public:
  using CudaForwarder::CudaForwarder;
  using CudaForwarder::recordStream;

  static CudaAdaptor* instance;

  void add_engines(int device_count) {
    for (int device = static_cast<int>(engines_.size()); device < device_count; ++device) {
      Registry::Device added;
      added.options.device = device;
      added.options.smallest_planned = kSmallestPlanned;
      added.options.is_in_backward = find_backward_probe();
      added.range = std::make_unique<TorchCudaRange>(upstream_, device);
      added.fences = std::make_unique<TorchCudaFences>(device);
      fences_.push_back(std::make_unique<TorchCudaFences>(device));
      attics_.push_back(std::make_unique<TorchCudaAttic>(upstream_, device, *fences_.back()));
      engines_.push_back(&Registry::get().add(std::move(added)));
    }
  }

  void init(int device_count) override {
    upstream_.init(device_count);
    add_engines(device_count);
  }

  c10::DataPtr allocate(std::size_t count) override {
    const Bytes size{static_cast<std::int64_t>(count)};
    Device device = 0;
    if (size < kSmallestPlanned || open_pools_.load(std::memory_order_relaxed) > 0 || !upstream_.isEnabled()) {
      return upstream_.allocate(count);
    }
    C10_CUDA_CHECK(c10::cuda::GetDevice(&device));
    if (static_cast<std::size_t>(device) >= engines_.size()) return upstream_.allocate(count);
    Engine& engine = *engines_[static_cast<std::size_t>(device)];
    const StreamId stream = id_of(c10::cuda::getCurrentCUDAStream(device));
    const Engine::Grant grant = engine.allocate(size, stream);
    if (grant.address != nullptr) {
      return {grant.address, grant.address, &delete_block, c10::Device(c10::DeviceType::CUDA, device)};
    }
    c10::DataPtr block;
    try {
      block = grant.is_lasting ? allocate_lasting(device, count) : allocate_upstream(engine, count);
    } catch (const c10::OutOfMemoryError&) {
      void* address = engine.allocate_anywhere(size, stream, grant);
      if (address == nullptr) throw;
      return {address, address, &delete_block, c10::Device(c10::DeviceType::CUDA, device)};
    }
    engine.note_upstream(block.get(), size, stream, grant);
    if (!block.compare_exchange_deleter(upstream_.raw_deleter(), &delete_block)) {
      engine.forget_upstream(block.get());
    }
    return block;
  }

  void raw_delete(void* address) override { release(address); }

  void recordStream(const c10::DataPtr& block, c10::cuda::CUDAStream stream) override {
    if (Engine* engine = owner_of(block.get()); engine != nullptr) {
      engine->record_stream(block.get(), id_of(stream));
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

  native::DeviceStats getDeviceStats(Device device) override {
    native::DeviceStats stats = upstream_.getDeviceStats(device);
    if (static_cast<std::size_t>(device) >= engines_.size()) return stats;
    // Upstream takes the whole arena for allocated: what is live in it is.
    const Engine::Snapshot now = engines_[static_cast<std::size_t>(device)]->snapshot();
    const std::int64_t idle = (now.arena - now.arena_live).value;
    for (const std::size_t type : {kAggregate, kLargePool}) {
      for (auto* stat : {&stats.allocated_bytes[type], &stats.active_bytes[type], &stats.requested_bytes[type]}) {
        stat->current -= idle;
        stat->peak = std::max(stat->current, now.arena.value > 0 ? now.counters.peak_live.value : stat->peak);
      }
    }
    return stats;
  }

  void resetPeakStats(Device device) override {
    upstream_.resetPeakStats(device);
    if (static_cast<std::size_t>(device) < engines_.size()) engines_[static_cast<std::size_t>(device)]->reset_peak_live();
  }

  void* getBaseAllocation(void* address, std::size_t* size) override {
    Engine* engine = owner_of(address);
    if (engine == nullptr) return upstream_.getBaseAllocation(address, size);
    return upstream_.getBaseAllocation(const_cast<void*>(engine->base()), size);
  }

  native::ShareableHandle shareIpcHandle(void* address) override {
    Engine* engine = owner_of(address);
    if (engine == nullptr) return upstream_.shareIpcHandle(address);
    native::ShareableHandle handle = upstream_.shareIpcHandle(const_cast<void*>(engine->base()));
    handle.offset += static_cast<const char*>(address) - static_cast<const char*>(engine->base());
    return handle;
  }

  void beginAllocateToPool(Device device, Pool pool, std::function<bool(cudaStream_t)> filter) override {
    open_pools_.fetch_add(1, std::memory_order_relaxed);
    upstream_.beginAllocateToPool(device, pool, std::move(filter));
  }

  void endAllocateToPool(Device device, Pool pool) override {
    upstream_.endAllocateToPool(device, pool);
    open_pools_.fetch_sub(1, std::memory_order_relaxed);
  }

 private:
  static void delete_block(void* address) { instance->release(address); }

  Engine* owner_of(const void* address) const {
    for (Engine* engine : engines_) {
      if (engine->owns(address)) return engine;
    }
    return nullptr;
  }

  void release(void* address) {
    if (Engine* engine = owner_of(address); engine != nullptr) {
      engine->deallocate(address);
      return;
    }
    for (Engine* engine : engines_) engine->forget_upstream(address);
    if (!release_lasting(address)) upstream_.raw_delete(address);
  }

  c10::DataPtr allocate_lasting(Device device, std::size_t count) {
    const std::lock_guard lock(attic_lock_);
    attic_is_used_.store(true, std::memory_order_relaxed);
    void* address = attics_[static_cast<std::size_t>(device)]->allocate({static_cast<std::int64_t>(count)});
    return {address, address, upstream_.raw_deleter(), c10::Device(c10::DeviceType::CUDA, device)};
  }

  bool release_lasting(void* address) {
    if (!attic_is_used_.load(std::memory_order_relaxed)) return false;
    const std::lock_guard lock(attic_lock_);
    for (std::size_t device = 0; device < attics_.size(); ++device) {
      if (attics_[device]->release(address, engines_[device]->home())) return true;
    }
    return false;
  }

  // An arena that is idle above its highest block is given back before the program sees an error.
  c10::DataPtr allocate_upstream(Engine& engine, std::size_t count) {
    try {
      return upstream_.allocate(count);
    } catch (const c10::OutOfMemoryError&) {
      if (engine.release_idle().value == 0) throw;
    }
    upstream_.emptyCache();
    return upstream_.allocate(count);
  }

  std::vector<Engine*> engines_;  // by device; filled once, before the first allocation
  std::vector<std::unique_ptr<TorchCudaFences>> fences_;
  std::vector<std::unique_ptr<TorchCudaAttic>> attics_;
  std::mutex attic_lock_;          // guards the attics; taken before upstream's locks
  std::atomic<bool> attic_is_used_{false};
  std::atomic<int> open_pools_{0};
};

CudaAdaptor* CudaAdaptor::instance = nullptr;

ebbtide_status install() {
  native::CUDAAllocator* upstream = native::allocator.load();
  // Other backends have neither segments nor blocks that an arena could be made of.
  if (upstream == nullptr || upstream->name() != "native") return EBBTIDE_UNSUPPORTED;
  // Leaked on purpose: storages keep pointers to it beyond static destructors.
  CudaAdaptor::instance = new CudaAdaptor(*upstream);
  if (upstream->initialized()) CudaAdaptor::instance->add_engines(c10::cuda::device_count());
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
