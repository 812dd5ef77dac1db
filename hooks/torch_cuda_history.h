// torch.cuda.memory's history and snapshots: the arena's tensors in them as blocks and events.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "allocator/base/units.h"
#include "allocator/device/stream_fences.h"

namespace ebbtide {

// Records, while upstream does, what upstream would of each block of the arena, and shows both as one: in a snapshot
// the arena's segment is made of the tensors in it and of what is idle between them, and the pieces that upstream
// gave for it are no allocations. Thread-safe; never takes the GIL with a lock.
class TorchCudaHistory {
 public:
  using Context = std::shared_ptr<c10::GatheredContext>;
  using SnapshotInfo = c10::cuda::CUDACachingAllocator::SnapshotInfo;
  using TraceEntry = c10::cuda::CUDACachingAllocator::TraceEntry;
  using RecordContext = c10::cuda::CUDACachingAllocator::RecordContext;

  struct Recording {
    bool enabled = false;
    c10::cuda::CUDACachingAllocator::CreateContextFn recorder = nullptr;
    std::size_t max_entries = 0;
    RecordContext when = RecordContext::NEVER;
    bool clear = false;
    std::vector<std::string> skip_actions;
  };

  explicit TorchCudaHistory(int device) : device_(static_cast<c10::DeviceIndex>(device)) {}

  void record(const Recording& recording);
  bool is_recording() const { return is_recording_.load(std::memory_order_relaxed); }

  // The calling thread's stack for its next placed() or released(); may take the GIL, so without any lock.
  void gather(RecordContext least);
  [[gnu::cold, gnu::noinline]] void placed(const void* address, Bytes size, StreamId stream) noexcept;
  [[gnu::cold, gnu::noinline]] void released(const void* address, Bytes size) noexcept;

  // As native's: metadata for all threads, compile contexts for the calling one.
  void set_user_metadata(const std::string& metadata);
  static void push_compile_context(const std::string& context);
  static void pop_compile_context();
  // An event of torch >= 2.14 about a live block; earlier versions have none.
  void annotate(const void* address, Bytes size, const std::string& metadata);

  struct ArenaView {
    const void* base = nullptr;
    Bytes extent;
    cudaStream_t stream = nullptr;  // upstream knows the arena's pieces by it
    struct Block { const void* address; Bytes size; };
    std::vector<Block> blocks;      // by address
  };
  void show_in(SnapshotInfo& snapshot, const ArenaView& arena) const;
  // Where the block was allocated, as its frames; none when that was not recorded.
  Context context_of(const void* address) const;

 private:
  void add(TraceEntry::Action action, const void* address, Bytes size, StreamId stream, Context context);
  void show_events(std::vector<TraceEntry>& events, cudaStream_t pieces) const;
  void show_blocks(c10::cuda::CUDACachingAllocator::SegmentInfo& segment, const ArenaView& arena) const;

  const c10::DeviceIndex device_;
  std::atomic<bool> is_recording_{false};
  mutable std::mutex lock_;  // guards what follows
  Recording recording_;
  std::string user_metadata_;
  c10::ApproximateClockToUnixTimeConverter clock_;
  std::deque<TraceEntry> events_;  // the newest max_entries
  struct Live {
    Context context;
    StreamId stream;
  };
  std::unordered_map<const void*, Live> live_;  // placed while recording
};

}  // namespace ebbtide
