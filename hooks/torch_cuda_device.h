// What the CUDA adaptor keeps for one device.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "allocator/runtime/arena_observer.h"
#include "allocator/runtime/engine.h"
#include "hooks/torch_cuda_attic.h"
#include "hooks/torch_cuda_fences.h"
#include "hooks/torch_cuda_history.h"
#include "hooks/torch_cuda_range.h"
#include "hooks/torch_cuda_statistics.h"
#include "hooks/torch_stacks.h"
#include "profiler/out_of_memory_text.h"

namespace ebbtide {

// Joins the device's engine with what torch wants to know of its blocks: statistics, history, the text of an error.
// Thread-safe. Lives for ever, as its engine does.
class TorchCudaDevice final : public ArenaObserver {
 public:
  using Upstream = c10::cuda::CUDACachingAllocator::CUDAAllocator;
  using SegmentInfo = c10::cuda::CUDACachingAllocator::SegmentInfo;

  // Creates the engine.
  TorchCudaDevice(Upstream& upstream, int device, Bytes smallest_planned, TorchCudaPools& pools);

  Engine& engine() { return *engine_; }
  TorchCudaAttic& attic() { return attic_; }
  TorchCudaStatistics& statistics() { return statistics_; }
  TorchCudaHistory& history() { return history_; }

  [[gnu::hot]] void placed(const void* address, Bytes size, StreamId stream) noexcept override;
  [[gnu::hot]] void released(const void* address, Bytes size) noexcept override;
  void round_ended() noexcept override;
  std::optional<LiveTotals> live() noexcept override { return statistics_.live(); }
  std::vector<Bytes> sizes_alive() noexcept override;

  TorchCudaStatistics::Stats stats();
  void reset_accumulated_stats();
  void show_in(TorchCudaHistory::SnapshotInfo& snapshot);
  // For other processes: the handle of the pieces of upstream that the block at `address` lies in. Throws what
  // upstream throws, and c10::Error when it lies in several and this torch's handles are not of the form known here.
  c10::cuda::CUDACachingAllocator::ShareableHandle share(const void* address);
  // Torch's text of an error, with what is known here. A report is written where EBBTIDE_OOM says, and named.
  // `stacks`: where those of its blocks are known; may be null.
  std::string explain(const std::string& text_of_torch, Bytes asked, Bytes given_back, const TorchStacks* stacks);

 private:
  TorchCudaHistory::ArenaView view() const;
  std::string owner_of(const Engine::LiveBlock& block) const;
  // Whose a block is that the engine does not follow.
  std::string owner_of(const void* address, Bytes size) const;
  void add_unfollowed(const SegmentInfo& segment, const std::unordered_set<const void*>& followed, OutOfMemoryFacts& facts) const;
  OutOfMemoryFacts facts_of(Bytes asked, Bytes given_back, const TorchStacks* stacks);
  // `round`: the latest in which something alive was made; 0: there is none.
  std::string phase(std::uint32_t round) const;

  Upstream& upstream_;
  const c10::DeviceIndex device_;
  TorchCudaStatistics statistics_;
  TorchCudaHistory history_;
  TorchCudaFences fences_;
  TorchCudaAttic attic_;
  TorchCudaRange* range_ = nullptr;  // the engine's
  Engine* engine_ = nullptr;         // the registry's
  mutable std::mutex older_lock_;    // guards the next two; innermost
  bool has_begun_ = false;           // a first round
  std::unordered_map<const void*, Bytes> older_;  // what was alive then, large enough to be planned; some may be gone
};

}  // namespace ebbtide
