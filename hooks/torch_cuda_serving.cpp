// What allocates and frees: the short way through an arena, and all that branches off from it.
#include <c10/cuda/CUDAFunctions.h>

#include "hooks/torch_cuda_adaptor.h"
#include "hooks/torch_cuda_device.h"
#include "hooks/torch_cuda_history.h"
#include "hooks/torch_cuda_listeners.h"
#include "hooks/torch_cuda_stream.h"
#include "hooks/torch_cuda_upstream_call.h"

namespace ebbtide {

bool CudaAdaptor::is_planned(Bytes size) const {
  return size >= kSmallestPlanned && !is_forced_uncached_ && is_caching_.load(std::memory_order_relaxed);
}

bool CudaAdaptor::is_of_pool() {
  Device device = 0;
  C10_CUDA_CHECK(c10::cuda::GetDevice(&device));
  return pools_.claims(device, c10::cuda::getCurrentCUDAStream(device).stream());
}

TorchCudaDevice* CudaAdaptor::current_device(Device& device) {
  // The check costs as much as the question.
  if (const cudaError_t asked = c10::cuda::GetDevice(&device); asked != cudaSuccess) [[unlikely]] C10_CUDA_CHECK(asked);
  return devices_.find(device);
}

c10::DataPtr CudaAdaptor::hand_out(void* address, Bytes size, TorchCudaDevice& own, Device device) const {
  if (is_listened_to()) tell_listeners(address, size, own, device);
  return {address, address, &delete_block, c10::Device(c10::DeviceType::CUDA, device)};
}

[[gnu::always_inline]] inline c10::DataPtr CudaAdaptor::serve_on(StreamId stream, TorchCudaDevice& own, Device device, Bytes size) {
  if (own.history().is_recording()) [[unlikely]] own.history().gather(native::RecordContext::STATE);
  const Engine::Grant grant = own.engine().serve(size, stream);
  insistence_.free_put_aside();
  if (grant.address == nullptr) [[unlikely]] return allocate_upstream(own, device, size, grant);
  return hand_out(grant.address, size, own, device);
}

[[gnu::always_inline]] inline c10::DataPtr CudaAdaptor::serve_planned(Bytes size) {
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

[[gnu::hot]] c10::DataPtr CudaAdaptor::allocate(std::size_t count) {
  const Bytes size{static_cast<std::int64_t>(count)};
  if (is_planned(size) && !pools_.has_any() && stacks_ == nullptr) [[likely]] return serve_planned(size);
  return stacks_ == nullptr ? serve_apart(size) : serve_noting_stack(size);
}

[[gnu::noinline]] c10::DataPtr CudaAdaptor::pass_or_serve(TorchCudaDevice& own, Device device, Bytes size) {
  Engine& engine = own.engine();
  // Asking torch for the stream takes as long as all else that is done for a request that is upstream's anyway.
  if (const auto passing = engine.pass_by(size); passing != Engine::Passing::kNo) [[unlikely]] {
    return pass(own, device, size, passing, passing == Engine::Passing::kTracked ? current_stream(device) : StreamId{});
  }
  return pass_or_serve(own, device, size, current_stream(device));
}

[[gnu::noinline]] c10::DataPtr CudaAdaptor::pass_or_serve(TorchCudaDevice& own, Device device, Bytes size, StreamId stream) {
  if (const auto passing = own.engine().pass_by(size, stream); passing != Engine::Passing::kNo) [[unlikely]] {
    return pass(own, device, size, passing, stream);
  }
  return serve_on(stream, own, device, size);
}

[[gnu::noinline]] c10::DataPtr CudaAdaptor::serve_apart(Bytes size) {
  const bool in_pool = pools_.has_any() && is_of_pool();
  if (is_planned(size) && !in_pool) return serve_planned(size);
  c10::DataPtr block = ask_upstream(size);
  if (in_pool) static_cast<void>(block.compare_exchange_deleter(upstream_.raw_deleter(), &delete_block));
  return block;
}

[[gnu::cold, gnu::noinline]] c10::DataPtr CudaAdaptor::serve_noting_stack(Bytes size) {
  const std::uint32_t stack = stacks_->enter();
  c10::DataPtr block = serve_apart(size);
  if (stack != 0 && size >= kSmallestPlanned) stacks_->note(block.get(), size, stack);
  return block;
}

[[gnu::noinline]] c10::DataPtr CudaAdaptor::pass(TorchCudaDevice& own, Device device, Bytes size, Engine::Passing passing, StreamId stream) {
  if (passing == Engine::Passing::kUntracked) return allocate_untracked(own, device, size);
  if (passing == Engine::Passing::kObserved) return allocate_observed(own, size, stream);
  Engine::Grant nothing;
  nothing.stream = stream;
  return allocate_upstream(own, device, size, nothing);
}

[[gnu::noinline]] c10::DataPtr CudaAdaptor::ask_upstream(Bytes size) {
  return insistence_.ask(size, [&] { return upstream_.allocate(static_cast<std::size_t>(size.value)); });
}

[[gnu::noinline]] c10::DataPtr CudaAdaptor::allocate_upstream(TorchCudaDevice& own, Device device, Bytes size, const Engine::Grant& grant) {
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

[[gnu::noinline]] c10::DataPtr CudaAdaptor::allocate_observed(TorchCudaDevice& own, Bytes size, StreamId stream) {
  c10::DataPtr block = insistence_.ask(size, [&] { return upstream_.allocate(static_cast<std::size_t>(size.value)); });
  own.statistics().note_upstream(size);
  own.engine().observe(block.get(), size, stream);
  if (!block.compare_exchange_deleter(upstream_.raw_deleter(), &delete_block)) own.engine().forget_upstream(block.get());
  return block;
}

[[gnu::noinline]] c10::DataPtr CudaAdaptor::allocate_untracked(TorchCudaDevice& own, Device device, Bytes size) {
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

[[gnu::noinline]] void CudaAdaptor::release_upstream(void* address) {
  if (!devices_.forget(address)) upstream_.raw_delete(address);
}

[[gnu::cold, gnu::noinline]] void CudaAdaptor::tell_of_release(void* address, TorchCudaDevice& own) {
  tell_listeners(address, Bytes{} - own.engine().block_at(address).size, own, static_cast<Device>(own.engine().options().device));
}

[[gnu::hot]] void CudaAdaptor::release(void* address) {
  if (UpstreamCall::put_aside(address)) [[unlikely]] return;
  TorchCudaDevice* const own = devices_.owner_of(address);
  if (own == nullptr) [[unlikely]] return release_upstream(address);
  Engine& engine = own->engine();
  if (own->history().is_recording()) [[unlikely]] own->history().gather(native::RecordContext::ALL);
  if (is_listened_to()) [[unlikely]] tell_of_release(address, *own);
  if (engine.deallocate(address) || engine.owns(address)) [[likely]] return;
  release_upstream(address);
}

[[gnu::hot]] void CudaAdaptor::delete_block(void* address) { instance->release(address); }

}  // namespace ebbtide
