#include "hooks/torch_cuda_history.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace ebbtide {
namespace {

using TraceEntry = TorchCudaHistory::TraceEntry;
using c10::cuda::CUDACachingAllocator::BlockInfo;

constexpr std::int64_t kGrain = 512;  // what upstream rounds blocks to
constexpr std::int64_t kNsPerUs = 1000;

thread_local TorchCudaHistory::Context gathered;
thread_local std::vector<std::string> compile_contexts;

std::size_t as_number(const void* address) { return reinterpret_cast<std::size_t>(address); }

bool is_of_a_block(TraceEntry::Action action) {
  return action == TraceEntry::ALLOC || action == TraceEntry::FREE_REQUESTED || action == TraceEntry::FREE_COMPLETED;
}

BlockInfo idle_block(std::size_t size) {
  BlockInfo block;
  block.size = size;
  return block;
}

}  // namespace

void TorchCudaHistory::record(const Recording& recording) {
  const std::lock_guard lock(lock_);
  recording_ = recording;
  if (!recording.enabled || recording.clear) events_.clear();
  if (!recording.enabled) live_.clear();
  is_recording_.store(recording.enabled, std::memory_order_relaxed);
}

void TorchCudaHistory::gather(RecordContext least) {
  c10::cuda::CUDACachingAllocator::CreateContextFn recorder = nullptr;
  {
    const std::lock_guard lock(lock_);
    if (recording_.enabled && recording_.when >= least) recorder = recording_.recorder;
  }
  gathered = recorder == nullptr ? nullptr : recorder();
}

void TorchCudaHistory::placed(const void* address, Bytes size, StreamId stream) noexcept {
  const std::lock_guard lock(lock_);
  if (!recording_.enabled) return;
  Context context = std::exchange(gathered, nullptr);
  live_[address] = {context, stream};
  add(TraceEntry::ALLOC, address, size, stream, std::move(context));
}

void TorchCudaHistory::released(const void* address, Bytes size) noexcept {
  const std::lock_guard lock(lock_);
  if (!recording_.enabled) return;
  Live live;
  if (const auto found = live_.find(address); found != live_.end()) {
    live = std::move(found->second);
    live_.erase(found);
  }
  Context context = std::exchange(gathered, nullptr);
  if (context == nullptr) context = live.context;
  add(TraceEntry::FREE_REQUESTED, address, size, live.stream, context);
  add(TraceEntry::FREE_COMPLETED, address, size, live.stream, std::move(context));
}

// With the lock.
void TorchCudaHistory::add(TraceEntry::Action action, const void* address, Bytes size, StreamId stream, Context context) {
  const bool is_skipped = std::any_of(recording_.skip_actions.begin(), recording_.skip_actions.end(), [&](const auto& name) {
    return c10::CachingDeviceAllocator::parseTraceEntryAction(name) == action;
  });
  if (is_skipped || recording_.max_entries == 0) return;
  if (recording_.when < RecordContext::ALLOC) context = nullptr;
  if (events_.size() >= recording_.max_entries) events_.pop_front();
  events_.emplace_back(action, device_, as_number(address), static_cast<std::size_t>(align_up(size.value, kGrain)),
                       reinterpret_cast<void*>(stream.value), c10::MempoolId_t{0, 0}, c10::getApproximateTime(),
                       std::move(context), compile_contexts.empty() ? "" : compile_contexts.back(), user_metadata_);
}

void TorchCudaHistory::set_user_metadata(const std::string& metadata) {
  const std::lock_guard lock(lock_);
  user_metadata_ = metadata;
}

void TorchCudaHistory::push_compile_context(const std::string& context) { compile_contexts.push_back(context); }

void TorchCudaHistory::pop_compile_context() {
  if (!compile_contexts.empty()) compile_contexts.pop_back();
}

void TorchCudaHistory::annotate(const void* address, Bytes size, const std::string& metadata) {
  const std::lock_guard lock(lock_);
  if (!recording_.enabled) return;
  const auto add_event = [&](auto action_of) {
    if constexpr (requires { decltype(action_of)::ANNOTATE; }) {
      const std::string usual = std::exchange(user_metadata_, metadata);
      const auto live = live_.find(address);
      add(decltype(action_of)::ANNOTATE, address, size, live == live_.end() ? StreamId{} : live->second.stream, nullptr);
      user_metadata_ = usual;
    }
  };
  add_event(TraceEntry(TraceEntry::ALLOC, device_, 0, 0, nullptr, {0, 0}, {}));
}

TorchCudaHistory::Context TorchCudaHistory::context_of(const void* address) const {
  const std::lock_guard lock(lock_);
  const auto found = live_.find(address);
  return found == live_.end() ? nullptr : found->second.context;
}

void TorchCudaHistory::show_in(SnapshotInfo& snapshot, const ArenaView& arena) const {
  if (arena.stream == nullptr) return;
  const std::lock_guard lock(lock_);
  for (auto& segment : snapshot.segments) {
    if (segment.device == device_ && segment.stream == arena.stream) show_blocks(segment, arena);
  }
  const auto device = static_cast<std::size_t>(device_);
  if (device < snapshot.device_traces.size()) show_events(snapshot.device_traces[device], arena.stream);
}

// Upstream's times are in microseconds by now, and in order.
void TorchCudaHistory::show_events(std::vector<TraceEntry>& events, cudaStream_t pieces) const {
  std::erase_if(events, [&](const TraceEntry& event) { return event.stream_ == pieces && is_of_a_block(event.action_); });
  const auto to_ns = const_cast<c10::ApproximateClockToUnixTimeConverter&>(clock_).makeConverter();
  const auto middle = static_cast<std::ptrdiff_t>(events.size());
  for (const TraceEntry& event : events_) {
    events.push_back(event);
    events.back().time_.t_ = to_ns(event.time_.approx_t_) / kNsPerUs;
  }
  std::inplace_merge(events.begin(), events.begin() + middle, events.end(),
                     [](const TraceEntry& a, const TraceEntry& b) { return a.time_.t_ < b.time_.t_; });
  if (events.size() <= recording_.max_entries) return;
  events.erase(events.begin(), events.end() - static_cast<std::ptrdiff_t>(recording_.max_entries));
}

// Upstream's blocks inside the arena become its tensors and what is idle between them.
void TorchCudaHistory::show_blocks(c10::cuda::CUDACachingAllocator::SegmentInfo& segment, const ArenaView& arena) const {
  const std::size_t begin = as_number(arena.base);
  const std::size_t end = begin + static_cast<std::size_t>(arena.extent.value);
  std::vector<BlockInfo> shown;
  std::size_t place = segment.address;
  std::size_t filled = segment.address;  // up to here `shown` is complete
  auto next = arena.blocks.begin();
  for (const BlockInfo& block : segment.blocks) {
    const std::size_t block_end = place + block.size;
    if (!block.allocated || place < begin || place >= end) {
      if (filled < place) shown.push_back(idle_block(place - filled));
      shown.push_back(block);
      filled = block_end;
    } else {
      segment.allocated_size -= block.size;
      segment.active_size -= block.size;
      segment.requested_size -= block.requested_size;
    }
    place = block_end;
    for (; next != arena.blocks.end() && as_number(next->address) < place; ++next) {
      const std::size_t address = as_number(next->address);
      if (address < filled) continue;
      if (filled < address) shown.push_back(idle_block(address - filled));
      BlockInfo tensor;
      tensor.requested_size = static_cast<std::size_t>(next->size.value);
      tensor.size = static_cast<std::size_t>(align_up(next->size.value, kGrain));
      tensor.allocated = tensor.active = true;
      if (const auto live = live_.find(next->address); live != live_.end()) tensor.context_when_allocated = live->second.context;
      segment.allocated_size += tensor.size;
      segment.active_size += tensor.size;
      segment.requested_size += tensor.requested_size;
      filled = address + tensor.size;
      shown.push_back(std::move(tensor));
    }
  }
  if (filled < place) shown.push_back(idle_block(place - filled));
  segment.blocks = std::move(shown);
}

}  // namespace ebbtide
