// The engine in front of torch's CUDA caching allocator (reference for the rules: torch's
// c10/cuda/CUDACachingAllocator.h, contracts of allocate, raw_deleter and recordStream).
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/env.h>

#include <atomic>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "hooks/registry.h"
#include "hooks/torch_adaptor.h"
#include "hooks/torch_cuda_device.h"
#include "hooks/torch_cuda_devices.h"
#include "hooks/torch_cuda_forwarder.h"
#include "hooks/torch_cuda_insistence.h"
#include "hooks/torch_cuda_listeners.h"
#include "hooks/torch_cuda_pools.h"
#include "hooks/torch_cuda_upstream_call.h"
#include "hooks/torch_cuda_watch.h"
#include "hooks/torch_stacks.h"

namespace ebbtide {
namespace {

// Torch's small pool serves up to 1 MiB from segments of 2 MiB, and does it well.
constexpr Bytes kSmallestPlanned{kMiB.value + 1};
// Above torch's own registration (0, in newer versions 1).
constexpr std::uint8_t kPriority = 10;

StreamId id_of(c10::cuda::CUDAStream stream) {
  if (stream.id() == 0) return {};  // the default stream; torch would say so, too, and takes a while
  return {reinterpret_cast<std::uint64_t>(stream.stream())};
}

// The default stream, which nearly all programs use, is 0 to torch and to CUDA: to ask for CUDA's handle is a call more.
StreamId current_stream(c10::DeviceIndex device) {
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device);
  if (stream.id() == 0) [[likely]] return {};
  return id_of(stream);
}

// As torch reads its switches: anything but "1" is off.
bool is_set_to_one(const char* variable) { return c10::utils::get_env(variable) == "1"; }

// Requests that upstream serves get its DataPtr unchanged but for the deleter, which reports the end to
// the engine and then calls upstream's. What the engine does not follow keeps upstream's own. What is a pool's (MemPool), and
// while a CUDA graph is captured or caching is switched off everything, is upstream's alone.
//
// raw_deleter() frees whatever allocate() gave, of whatever size and from whomever: programs keep the pointer alone
// and free it so. Blocks of pools carry it as well, because CUDA graph trees compare. Small blocks and
// those that the engine does not follow keep upstream's own, for speed.
class CudaAdaptor final : public CudaForwarder {
 public:
  explicit CudaAdaptor(native::CUDAAllocator& upstream)
      : CudaForwarder(upstream),
        devices_(upstream, pools_),
        is_forced_uncached_(is_set_to_one("PYTORCH_NO_CUDA_MEMORY_CACHING")),
        is_caching_(upstream.isEnabled()),
        stacks_(TorchStacks::make(Registry::get())),
        insistence_(upstream, devices_, pools_, stacks_.get(), &delete_block) {}
  using CudaForwarder::recordStream;

  static CudaAdaptor* instance;

  void add_devices(int device_count) { devices_.add_up_to(device_count, kSmallestPlanned); }

  void init(int device_count) override {
    upstream_.init(device_count);
    add_devices(device_count);
    watch_upstream();
  }

  void watch_upstream() {
    EventSink* sink = Registry::get().sink();
    // Leaked: upstream keeps it.
    if (sink != nullptr && watch_ == nullptr) {
      watch_ = new TorchCudaWatch(*sink);
      watch_->attach(upstream_);
      insistence_.attach(watch_);
    }
    Registry::get().record_device_activity();
  }

  [[gnu::hot]] c10::DataPtr allocate(std::size_t count) override {
    const Bytes size{static_cast<std::int64_t>(count)};
    if (is_planned(size) && !pools_.has_any() && stacks_ == nullptr) [[likely]] return serve_planned(size);
    return stacks_ == nullptr ? serve_apart(size) : serve_noting_stack(size);
  }

  // As upstream does: whoever allocates so is not seen by the engine.
  void* raw_alloc(std::size_t count) override {
    if (stacks_ != nullptr) stacks_->enter();
    return insistence_.ask({static_cast<std::int64_t>(count)}, [&] { return upstream_.raw_alloc(count); });
  }
  void* raw_alloc_with_stream(std::size_t count, cudaStream_t stream) override {
    if (stacks_ != nullptr) stacks_->enter();
    return insistence_.ask({static_cast<std::int64_t>(count)}, [&] { return upstream_.raw_alloc_with_stream(count, stream); });
  }

  c10::DeleterFnPtr raw_deleter() const override { return &delete_block; }
  void raw_delete(void* address) override { release(address); }

  void recordStream(const c10::DataPtr& block, c10::cuda::CUDAStream stream) override {
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

  native::DeviceStats getDeviceStats(Device device) override {
    TorchCudaDevice* own = devices_.find(device);
    return own == nullptr ? upstream_.getDeviceStats(device) : own->stats();
  }

  void resetPeakStats(Device device) override {
    TorchCudaDevice* own = devices_.find(device);
    if (own == nullptr) return upstream_.resetPeakStats(device);
    own->statistics().reset_peaks();
    own->engine().reset_peak_live();
  }

  void resetAccumulatedStats(Device device) override {
    TorchCudaDevice* own = devices_.find(device);
    if (own == nullptr) return upstream_.resetAccumulatedStats(device);
    own->reset_accumulated_stats();
  }

  void enable(bool value) override {
    upstream_.enable(value);
    is_caching_ = upstream_.isEnabled();
  }

  // What the program wants back includes what is idle in the arenas.
  void emptyCache(Pool pool) override {
    if (pool == Pool{0, 0} && !pools_.is_anything_captured()) {
      for (const auto& own : devices_) static_cast<void>(own->engine().release_idle());
    }
    upstream_.emptyCache(pool);
  }

  native::SnapshotInfo snapshot(Pool pool, bool include_traces) override {
    native::SnapshotInfo info = upstream_.snapshot(pool, include_traces);
    for (const auto& own : devices_) {
      if (pool == Pool{0, 0}) own->show_in(info);
    }
    return info;
  }

  void recordHistory(bool enabled, native::CreateContextFn recorder, std::size_t max_entries, native::RecordContext when,
                     bool clear, const std::vector<std::string>& skip_actions) override {
    upstream_.recordHistory(enabled, recorder, max_entries, when, clear, skip_actions);
    for (const auto& own : devices_) own->history().record({enabled, recorder, max_entries, when, clear, skip_actions});
  }

  // Native's histories carry these along; so do the arenas'.
  void setUserMetadata(const std::string& metadata) override {
    upstream_.setUserMetadata(metadata);
    for (const auto& own : devices_) own->history().set_user_metadata(metadata);
  }
  void pushCompileContext(std::string& context) override {
    upstream_.pushCompileContext(context);
    TorchCudaHistory::push_compile_context(context);
  }
  void popCompileContext() override {
    upstream_.popCompileContext();
    TorchCudaHistory::pop_compile_context();
  }
  std::shared_ptr<c10::GatheredContext> getContextForPointer(const void* address) override {
    TorchCudaDevice* own = devices_.owner_of(address);
    return own == nullptr ? CudaForwarder::getContextForPointer(address) : own->history().context_of(address);
  }
  void annotateMemory(const void* address, const std::string& metadata) override {
    TorchCudaDevice* own = devices_.owner_of(address);
    if (own == nullptr) return CudaForwarder::annotateMemory(address, metadata);
    own->history().annotate(address, own->engine().block_at(address).size, metadata);
  }

  void attachOutOfMemoryObserver(native::OutOfMemoryObserver observer) override { insistence_.attach(std::move(observer)); }

  void* getBaseAllocation(void* address, std::size_t* size) override {
    TorchCudaDevice* own = devices_.owner_of(address);
    if (own == nullptr) return upstream_.getBaseAllocation(address, size);
    return upstream_.getBaseAllocation(const_cast<void*>(own->engine().base()), size);
  }

  native::ShareableHandle shareIpcHandle(void* address) override {
    TorchCudaDevice* own = devices_.owner_of(address);
    return own == nullptr ? upstream_.shareIpcHandle(address) : own->share(address);
  }

  void beginAllocateToPool(Device device, Pool pool, std::function<bool(cudaStream_t)> filter) override {
    pools_.open(device, pool, filter, c10::cuda::getCurrentCUDAStream(device).stream());
    upstream_.beginAllocateToPool(device, pool, std::move(filter));
  }

  void endAllocateToPool(Device device, Pool pool) override {
    upstream_.endAllocateToPool(device, pool);
    pools_.close(device, pool);
  }

  native::CheckpointDelta setCheckpointPoolState(Device device, std::shared_ptr<native::AllocatorState> state) override {
    native::CheckpointDelta delta = upstream_.setCheckpointPoolState(device, std::move(state));
    for (c10::DataPtr& block : delta.dataptrs_allocd) {
      static_cast<void>(block.compare_exchange_deleter(upstream_.raw_deleter(), &delete_block));
    }
    return delta;
  }

 private:
  // Whether a request of this size that is no pool's may be an arena's.
  bool is_planned(Bytes size) const {
    return size >= kSmallestPlanned && !is_forced_uncached_ && is_caching_.load(std::memory_order_relaxed);
  }

  // What is served from an arena goes straight through; all else branches off, and is laid apart (see RoundServer).
  [[gnu::always_inline]] c10::DataPtr serve_planned(Bytes size) {
    TorchCudaDevice* own = devices_.sole();
    Device device = 0;
    if (own == nullptr) own = current_device(device);
    if (own == nullptr) [[unlikely]] return ask_upstream(size);
    Engine& engine = own->engine();
    if (!engine.serves_home()) [[unlikely]] return pass_or_serve(*own, device, size);
    const StreamId stream = current_stream(device);
    if (!(stream == engine.home())) [[unlikely]] return pass_or_serve(*own, device, size, stream);
    return serve_on(stream, *own, device, size);
  }

  [[gnu::always_inline]] c10::DataPtr serve_on(StreamId stream, TorchCudaDevice& own, Device device, Bytes size) {
    if (own.history().is_recording()) [[unlikely]] own.history().gather(native::RecordContext::STATE);
    const Engine::Grant grant = own.engine().serve(size, stream);
    insistence_.free_put_aside();
    if (grant.address == nullptr) [[unlikely]] return allocate_upstream(own, device, size, grant);
    return hand_out(grant.address, size, own, device);
  }

  [[gnu::noinline]] c10::DataPtr pass_or_serve(TorchCudaDevice& own, Device device, Bytes size) {
    Engine& engine = own.engine();
    // Asking torch for the stream takes as long as all else that is done for a request that is upstream's anyway.
    if (const auto passing = engine.pass_by(size); passing != Engine::Passing::kNo) [[unlikely]] {
      return pass(own, device, size, passing, passing == Engine::Passing::kTracked ? current_stream(device) : StreamId{});
    }
    return pass_or_serve(own, device, size, current_stream(device));
  }

  [[gnu::noinline]] c10::DataPtr pass_or_serve(TorchCudaDevice& own, Device device, Bytes size, StreamId stream) {
    if (const auto passing = own.engine().pass_by(size, stream); passing != Engine::Passing::kNo) [[unlikely]] {
      return pass(own, device, size, passing, stream);
    }
    return serve_on(stream, own, device, size);
  }

  [[gnu::noinline]] c10::DataPtr ask_upstream(Bytes size) {
    return insistence_.ask(size, [&] { return upstream_.allocate(static_cast<std::size_t>(size.value)); });
  }

  [[gnu::cold, gnu::noinline]] c10::DataPtr serve_noting_stack(Bytes size) {
    const std::uint32_t stack = stacks_->enter();
    c10::DataPtr block = serve_apart(size);
    if (stack != 0 && size >= kSmallestPlanned) stacks_->note(block.get(), size, stack);
    return block;
  }

  // What is small, or is asked for while there are pools, or by a program that wants nothing cached.
  [[gnu::noinline]] c10::DataPtr serve_apart(Bytes size) {
    const bool in_pool = pools_.has_any() && is_of_pool();
    if (is_planned(size) && !in_pool) return serve_planned(size);
    c10::DataPtr block = ask_upstream(size);
    if (in_pool) static_cast<void>(block.compare_exchange_deleter(upstream_.raw_deleter(), &delete_block));
    return block;
  }

  TorchCudaDevice* current_device(Device& device) {
    // The check costs as much as the question.
    if (const cudaError_t asked = c10::cuda::GetDevice(&device); asked != cudaSuccess) [[unlikely]] C10_CUDA_CHECK(asked);
    return devices_.find(device);
  }

  // What no plan can serve. `stream`: of no meaning for what is not tracked.
  [[gnu::noinline]] c10::DataPtr pass(TorchCudaDevice& own, Device device, Bytes size, Engine::Passing passing, StreamId stream) {
    if (passing == Engine::Passing::kUntracked) return allocate_untracked(own, device, size);
    if (passing == Engine::Passing::kObserved) return allocate_observed(own, size, stream);
    Engine::Grant nothing;
    nothing.stream = stream;
    return allocate_upstream(own, device, size, nothing);
  }

  bool is_of_pool() {
    Device device = 0;
    C10_CUDA_CHECK(c10::cuda::GetDevice(&device));
    return pools_.claims(device, c10::cuda::getCurrentCUDAStream(device).stream());
  }

  [[gnu::hot]] static void delete_block(void* address) { instance->release(address); }

  // What upstream tells of its blocks is told of the arena's, too.
  c10::DataPtr hand_out(void* address, Bytes size, TorchCudaDevice& own, Device device) const {
    if (is_listened_to()) tell_listeners(address, size, own, device);
    return {address, address, &delete_block, c10::Device(c10::DeviceType::CUDA, device)};
  }

  [[gnu::noinline]] c10::DataPtr allocate_upstream(TorchCudaDevice& own, Device device, Bytes size, const Engine::Grant& grant) {
    void* in_arena = nullptr;
    const auto ask = [&] { return grant.is_lasting ? devices_.allocate_lasting(device, size) : upstream_.allocate(static_cast<std::size_t>(size.value)); };
    const auto anywhere = [&] { return in_arena = own.engine().allocate_anywhere(size, grant.stream, grant); };
    c10::DataPtr block;
    try {
      block = insistence_.ask(size, ask, anywhere);
    } catch (...) {
      own.engine().note_refused(size, grant);
      throw;
    }
    if (in_arena != nullptr) return hand_out(in_arena, size, own, device);
    own.statistics().note_upstream(size);
    own.engine().note_upstream(block.get(), size, grant);
    if (!block.compare_exchange_deleter(upstream_.raw_deleter(), &delete_block)) {
      own.engine().forget_upstream(block.get());
    }
    return block;
  }

  [[gnu::noinline]] c10::DataPtr allocate_observed(TorchCudaDevice& own, Bytes size, StreamId stream) {
    c10::DataPtr block = insistence_.ask(size, [&] { return upstream_.allocate(static_cast<std::size_t>(size.value)); });
    own.statistics().note_upstream(size);
    own.engine().observe(block.get(), size, stream);
    if (!block.compare_exchange_deleter(upstream_.raw_deleter(), &delete_block)) own.engine().forget_upstream(block.get());
    return block;
  }

  [[gnu::noinline]] c10::DataPtr allocate_untracked(TorchCudaDevice& own, Device device, Bytes size) {
    void* in_arena = nullptr;
    Engine::Grant nothing;
    const auto anywhere = [&] {
      nothing.stream = current_stream(device);
      return in_arena = own.engine().allocate_anywhere(size, nothing.stream, nothing);
    };
    try {
      c10::DataPtr block = insistence_.ask(size, [&] { return upstream_.allocate(static_cast<std::size_t>(size.value)); }, anywhere);
      if (in_arena != nullptr) return hand_out(in_arena, size, own, device);
      own.statistics().note_upstream(size);
      return block;
    } catch (...) {
      own.engine().note_refused(size, nothing);
      throw;
    }
  }

  [[gnu::hot]] void release(void* address) {
    if (UpstreamCall::put_aside(address)) [[unlikely]] return;
    TorchCudaDevice* const own = devices_.owner_of(address);
    if (own == nullptr) [[unlikely]] return release_upstream(address);
    Engine& engine = own->engine();
    if (own->history().is_recording()) [[unlikely]] own->history().gather(native::RecordContext::ALL);
    if (is_listened_to()) [[unlikely]] tell_of_release(address, *own);
    if (engine.deallocate(address) || engine.owns(address)) [[likely]] return;
    release_upstream(address);
  }

  [[gnu::noinline]] void release_upstream(void* address) {
    if (!devices_.forget(address)) upstream_.raw_delete(address);
  }

  [[gnu::cold, gnu::noinline]] static void tell_of_release(void* address, TorchCudaDevice& own) {
    tell_listeners(address, Bytes{} - own.engine().block_at(address).size, own, static_cast<Device>(own.engine().options().device));
  }

  TorchCudaPools pools_;
  TorchCudaDevices devices_;
  const bool is_forced_uncached_;
  std::atomic<bool> is_caching_;               // as upstream answers, which is asked through here alone
  const std::unique_ptr<TorchStacks> stacks_;  // null: no stacks are wanted
  TorchCudaInsistence insistence_;
  TorchCudaWatch* watch_ = nullptr;            // where there is a trace; set before the first allocation
};

CudaAdaptor* CudaAdaptor::instance = nullptr;

ebbtide_status install() {
  native::CUDAAllocator* upstream = native::allocator.load();
  // Other backends have neither segments nor blocks that an arena could be made of.
  if (upstream == nullptr || upstream->name() != "native") return EBBTIDE_UNSUPPORTED;
  // Leaked on purpose: storages keep pointers to it beyond static destructors.
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
