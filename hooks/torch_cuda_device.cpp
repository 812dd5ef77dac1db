#include "hooks/torch_cuda_device.h"

#include <c10/core/AllocatorConfig.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "allocator/base/log.h"
#include "hooks/python_frames.h"
#include "hooks/registry.h"
#include "hooks/torch_backward.h"
#include "hooks/torch_cuda_out_of_memory.h"
#include "hooks/torch_cuda_shared_handle.h"
#include "hooks/torch_cuda_watch.h"
#include "hooks/torch_cuda_workspace.h"

namespace ebbtide {
namespace {

constexpr std::size_t kMostFrames = 64;
constexpr const char* kOlder = "made before the first iteration: parameters and the like";

// Stretches of the arena that no block holds.
std::int64_t count_gaps(const TorchCudaHistory::ArenaView& arena) {
  std::int64_t gaps = 0;
  const auto* filled = static_cast<const char*>(arena.base);
  for (const auto& block : arena.blocks) {
    const auto* begin = static_cast<const char*>(block.address);
    gaps += begin > filled ? 1 : 0;
    filled = begin + align_up(block.size, Bytes{512}).value;
  }
  return gaps + (filled < static_cast<const char*>(arena.base) + arena.extent.value ? 1 : 0);
}

// Visits the segment's blocks that hold a tensor: visit(address, bytes asked for).
template <typename Visit>
void for_each_tensor(const c10::cuda::CUDACachingAllocator::SegmentInfo& segment, Visit visit) {
  const auto* address = reinterpret_cast<const char*>(segment.address);
  for (const auto& block : segment.blocks) {
    if (block.active) visit(static_cast<const void*>(address), Bytes{static_cast<std::int64_t>(block.requested_size)});
    address += block.size;
  }
}

// Of one segment, and adds what its blocks were asked for to `requested`.
OutOfMemoryFacts::Segment held_by(const c10::cuda::CUDACachingAllocator::SegmentInfo& segment, Bytes& requested) {
  OutOfMemoryFacts::Segment held{segment.address, {static_cast<std::int64_t>(segment.total_size)}, {}, {}};
  for (const auto& block : segment.blocks) {
    const Bytes size{static_cast<std::int64_t>(block.size)};
    if (!block.active) {
      held.free.push_back(size);
      continue;
    }
    held.taken += size;
    requested += Bytes{static_cast<std::int64_t>(block.requested_size)};
  }
  return held;
}

// Of Python, the innermost first; needs no trace: it is read when it is wanted.
std::vector<std::string> calling_frames() {
  PythonFrames frames;
  std::vector<std::uint64_t> key;
  frames.append_key(key, kMostFrames);
  return frames.texts();
}

}  // namespace

TorchCudaDevice::TorchCudaDevice(Upstream& upstream, int device, Bytes smallest_planned, TorchCudaPools& pools)
    : upstream_(upstream),
      device_(static_cast<c10::DeviceIndex>(device)),
      statistics_(upstream, device),
      history_(device),
      fences_(device),
      attic_(upstream, device, fences_) {
  Registry::Device added;
  added.options.device = device;
  added.options.smallest_planned = smallest_planned;
  added.options.is_in_backward = find_backward_probe();
  added.options.is_for_workspace = &is_for_workspace;
  added.options.observer = this;
  auto range = std::make_unique<TorchCudaRange>(upstream, device, statistics_, pools);
  range_ = range.get();
  added.range = std::move(range);
  added.fences = std::make_unique<TorchCudaFences>(device);
  engine_ = &Registry::get().add(std::move(added));
  statistics_.stand_beside(engine_->lock());
}

// What is called last needs nothing of what came before it: these two save nothing.
void TorchCudaDevice::placed(const void* address, Bytes size, StreamId stream) noexcept {
  if (history_.is_recording()) [[unlikely]] history_.placed(address, size, stream);
  statistics_.placed(size);
}

void TorchCudaDevice::released(const void* address, Bytes size) noexcept {
  if (history_.is_recording()) [[unlikely]] history_.released(address, size);
  statistics_.released(size);
}

void TorchCudaDevice::round_ended() noexcept {
  if (EventSink* sink = Registry::get().sink(); sink != nullptr) record_device_used(*sink, device_);
}

std::vector<Bytes> TorchCudaDevice::sizes_alive() noexcept {
  std::vector<Bytes> sizes;
  try {
    const auto snapshot = upstream_.snapshot({0, 0}, false);
    const std::lock_guard lock(older_lock_);
    has_begun_ = true;
    for (const auto& segment : snapshot.segments) {
      if (segment.device != device_) continue;
      for_each_tensor(segment, [&](const void* address, Bytes size) {
        if (size < engine_->options().smallest_planned) return;
        sizes.push_back(size);
        older_.emplace(address, size);
      });
    }
  } catch (const std::exception& error) {
    EBBTIDE_WARN("cuda:%d: what is alive before the first iteration could not be listed: %s", device_, error.what());
  }
  return sizes;
}

TorchCudaHistory::ArenaView TorchCudaDevice::view() const {
  TorchCudaHistory::ArenaView view;
  view.base = engine_->base();
  view.extent = engine_->snapshot().extent;
  view.stream = range_->stream();
  for (const Engine::LiveBlock& block : engine_->live_blocks()) {
    if (block.in_arena) view.blocks.push_back({block.address, block.size});
  }
  return view;
}

TorchCudaStatistics::Stats TorchCudaDevice::stats() { return statistics_.read(count_gaps(view())); }

void TorchCudaDevice::reset_accumulated_stats() { statistics_.reset_accumulated(count_gaps(view())); }

void TorchCudaDevice::show_in(TorchCudaHistory::SnapshotInfo& snapshot) { history_.show_in(snapshot, view()); }

c10::cuda::CUDACachingAllocator::ShareableHandle TorchCudaDevice::share(const void* address) {
  const Engine::Extent block = engine_->block_at(address);
  const auto pieces = range_->pieces_around(address, block.size);
  TORCH_CHECK(!pieces.empty(), "ebbtide: ", address, " is no tensor of the arena, which cannot be shared");
  auto handle = upstream_.shareIpcHandle(pieces.front().begin);
  handle.offset += static_cast<const char*>(address) - static_cast<const char*>(pieces.front().begin);
  if (pieces.size() == 1) return handle;
  std::vector<std::string> handles{std::move(handle.handle)};
  std::vector<std::size_t> page_counts;
  for (const auto& piece : pieces) {
    if (piece.begin != pieces.front().begin) handles.push_back(upstream_.shareIpcHandle(piece.begin).handle);
    page_counts.push_back(static_cast<std::size_t>(piece.size.value / TorchCudaRange::kPage.value));
  }
  auto joined = join_shared_handles(handles, static_cast<std::size_t>(TorchCudaRange::kPage.value), page_counts);
  TORCH_CHECK(joined.has_value(), "ebbtide: a tensor of ", to_string(block.size),
              " in the arena spans several pieces of expandable memory, which this torch does not give to other processes as one: set "
              "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False to share it");
  handle.handle = std::move(*joined);
  return handle;
}

std::string TorchCudaDevice::owner_of(const void* address, Bytes size) const {
  const std::lock_guard lock(older_lock_);
  const auto found = older_.find(address);
  if (!has_begun_ || (found != older_.end() && found->second == size)) return kOlder;
  return "not followed: of another stream, a pool, or iterations that do not repeat";
}

std::string TorchCudaDevice::owner_of(const Engine::LiveBlock& block) const {
  if (block.origin.round == 0) return kOlder;
  return "request " + std::to_string(block.origin.request) + " of round " + std::to_string(block.origin.round) +
         (block.in_arena ? ", in the arena" : "");
}

std::string TorchCudaDevice::phase(std::uint32_t round) const {
  const bool in_backward = engine_->options().is_in_backward != nullptr && engine_->options().is_in_backward();
  if (round == 0) return in_backward ? "a backward" : "";
  return (in_backward ? "the backward of round " : "round ") + std::to_string(round);
}

void TorchCudaDevice::add_unfollowed(const SegmentInfo& segment, const std::unordered_set<const void*>& followed,
                                     OutOfMemoryFacts& facts) const {
  for_each_tensor(segment, [&](const void* address, Bytes size) {
    if (size < engine_->options().smallest_planned || followed.contains(address)) return;
    facts.largest.push_back({size, owner_of(address, size), address, {}});
  });
}

OutOfMemoryFacts TorchCudaDevice::facts_of(Bytes asked, Bytes given_back, const TorchStacks* stacks) {
  OutOfMemoryFacts facts;
  facts.device = device_;
  facts.asked = asked;
  facts.given_back = given_back;
  const TorchCudaStatistics::Stats now = stats();
  facts.allocated = {now.allocated_bytes[kAggregate].current};
  facts.reserved = {now.reserved_bytes[kAggregate].current};
  std::size_t free = 0;
  std::size_t total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) free = total = 0;
  facts.device_free = {static_cast<std::int64_t>(free)};
  facts.device_total = {static_cast<std::int64_t>(total)};
  facts.has_expandable_segments = c10::CachingAllocator::AcceleratorAllocatorConfig::use_expandable_segments();
  auto snapshot = upstream_.snapshot({0, 0}, false);
  show_in(snapshot);
  std::vector<Engine::LiveBlock> live = engine_->live_blocks();
  std::unordered_set<const void*> followed;
  for (const Engine::LiveBlock& block : live) followed.insert(block.address);
  for (const auto& segment : snapshot.segments) {
    if (segment.device != device_) continue;
    facts.segments.push_back(held_by(segment, facts.requested));
    add_unfollowed(segment, followed, facts);
  }
  const Engine::Snapshot engine = engine_->snapshot();
  facts.arena = engine.arena;
  facts.arena_live = engine.arena_live;
  facts.plan_height = engine.serving ? engine.plan_height : Bytes{};
  std::uint32_t latest = 0;
  for (const Engine::LiveBlock& block : live) latest = std::max(latest, block.origin.round);
  facts.asked_in = phase(latest);
  for (const Engine::LiveBlock& block : live) {
    if (latest > 0 && block.origin.round == latest) facts.made_in_round += block.size;
    facts.largest.push_back({block.size, owner_of(block), block.address, {}});
  }
  std::stable_sort(facts.largest.begin(), facts.largest.end(), [](const auto& a, const auto& b) { return a.size > b.size; });
  for (std::size_t i = 0; stacks != nullptr && i < std::min(facts.largest.size(), OutOfMemoryFacts::kStacksTold); ++i) {
    facts.largest[i].stack = stacks->frames_of(facts.largest[i].address, facts.largest[i].size);
  }
  return facts;
}

std::string TorchCudaDevice::explain(const std::string& text_of_torch, Bytes asked, Bytes given_back,
                                     const TorchStacks* stacks) {
  OutOfMemoryFacts facts = facts_of(asked, given_back, stacks);
  facts.asked_from = calling_frames();
  const std::string text = explain_out_of_memory(text_of_torch, facts);
  const Result<Settings>& settings = Registry::get().settings();
  if (!settings.ok() || settings.value().out_of_memory.is_off) return text;
  std::string path = settings.value().out_of_memory.path;
  if (const auto at = path.find("%p"); at != std::string::npos) path.replace(at, 2, std::to_string(::getpid()));
  const Status written = write_text(path, out_of_memory_report(text, facts));
  return text + (written.ok() ? " The whole report: " + path : " No report was written: " + written.error().message) +
         " (EBBTIDE_OOM).";
}

}  // namespace ebbtide
