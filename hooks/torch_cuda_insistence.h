// Asking upstream for memory, and all that is tried before the program sees that it is out.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/util/Exception.h>

#include <optional>
#include <utility>

#include "hooks/torch_cuda_devices.h"
#include "hooks/torch_cuda_out_of_memory.h"
#include "hooks/torch_cuda_pools.h"
#include "hooks/torch_cuda_range.h"
#include "hooks/torch_cuda_statistics.h"
#include "hooks/torch_cuda_upstream_call.h"
#include "hooks/torch_cuda_watch.h"
#include "hooks/torch_stacks.h"

namespace ebbtide {

// Holds none of our locks while it asks. Thread-safe. Where upstream answers it costs what UpstreamCall and Quiet cost.
class TorchCudaInsistence {
 public:
  using Upstream = c10::cuda::CUDACachingAllocator::CUDAAllocator;

  // `free`: of a block that was put aside (see UpstreamCall). `stacks`: those of blocks, may be null. Both outlive it.
  TorchCudaInsistence(Upstream& upstream, TorchCudaDevices& devices, TorchCudaPools& pools, const TorchStacks* stacks,
                      void (*free)(void*))
      : upstream_(upstream), devices_(devices), pools_(pools), stacks_(stacks), free_(free), failures_(*new OutOfMemoryRelay(upstream)) {}

  // Who wants to hear of failures that reach the program.
  void attach(OutOfMemoryRelay::Observer observer) { failures_.attach(std::move(observer)); }
  void attach(TorchCudaWatch* watch) { watch_ = watch; }

  // `ask` asks upstream. Before the program sees that memory is out, the arena gives back what is idle above its highest block; then
  // the request may go `elsewhere` (not null; then the result is empty); then the arena gives back what is idle between its
  // blocks. An error says what is known here.
  template <typename Ask, typename Elsewhere>
  auto ask(Bytes size, Ask ask, Elsewhere elsewhere) -> decltype(ask()) {
    TorchCudaDevice* own = nullptr;
    try {
      const OutOfMemoryRelay::Quiet quiet;
      return ask_once(ask);
    } catch (const c10::OutOfMemoryError& error) {
      own = device_to_relieve(error, size);
    }
    if (own == nullptr) return ask_once(ask);
    Bytes given_back = own->engine().release_idle();
    if (auto result = ask_again(ask, *own, given_back)) return std::move(*result);
    if (elsewhere() != nullptr) return {};
    // Upstream takes whole pages.
    const Bytes inside = own->engine().release_inside(align_up(size, TorchCudaRange::kPage) + TorchCudaRange::kPage);
    if (auto result = ask_again(ask, *own, inside)) return std::move(*result);
    given_back += inside;
    try {
      return ask_once(ask);
    } catch (const c10::OutOfMemoryError& error) {
      throw explained(error, *own, size, given_back);
    }
  }
  template <typename Ask>
  auto ask(Bytes size, Ask ask) -> decltype(ask()) {
    return this->ask(size, ask, [] { return static_cast<void*>(nullptr); });
  }

  // What this thread freed meanwhile. Requires: it holds none of our locks.
  void free_put_aside() const {
    if (UpstreamCall::has_put_aside()) free_all_put_aside();
  }

 private:
  struct FreesPutAside {
    explicit FreesPutAside(const TorchCudaInsistence& of) : of_(of) {}
    ~FreesPutAside() { of_.free_put_aside(); }
    FreesPutAside(const FreesPutAside&) = delete;
    FreesPutAside& operator=(const FreesPutAside&) = delete;

   private:
    const TorchCudaInsistence& of_;
  };

  template <typename Ask>
  auto ask_once(Ask& ask) -> decltype(ask()) {
    const FreesPutAside after(*this);
    const UpstreamCall call;
    return ask();
  }
  // Empty: `given_back` was not enough.
  template <typename Ask>
  auto ask_again(Ask& ask, TorchCudaDevice& own, Bytes given_back) -> std::optional<decltype(ask())> {
    if (given_back.value == 0) return std::nullopt;
    try {
      const OutOfMemoryRelay::Quiet quiet;
      TorchCudaStatistics::empty_cache_unseen(upstream_);
      return ask_once(ask);
    } catch (const c10::OutOfMemoryError&) {
      own.statistics().hide_out_of_memory();
      return std::nullopt;
    }
  }
  // After a first failure: whose arena may have something to give back; null when nothing can be. Throws where that would
  // be of no use.
  TorchCudaDevice* device_to_relieve(const c10::OutOfMemoryError& error, Bytes size);
  c10::OutOfMemoryError explained(const c10::OutOfMemoryError& error, TorchCudaDevice& own, Bytes size, Bytes given_back) const;
  void free_all_put_aside() const;

  Upstream& upstream_;
  TorchCudaDevices& devices_;
  TorchCudaPools& pools_;
  const TorchStacks* const stacks_;
  void (*const free_)(void*);
  OutOfMemoryRelay& failures_;       // leaked: upstream keeps it
  TorchCudaWatch* watch_ = nullptr;  // where there is a trace; set before the first allocation
};

}  // namespace ebbtide
