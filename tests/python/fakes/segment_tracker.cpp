// What torch's NCCL process group does to know which memory is to be registered: a tracker of the allocator's trace. And a block
// that is freed by one of torch's callbacks for more memory, under torch's own lock, as CudaIPCCollect frees what other processes
// have let go of.
// Built by segment_tracker.py; called through ctypes.
#include <c10/core/Allocator.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace {

namespace native = c10::cuda::CUDACachingAllocator;
using Entry = native::TraceEntry;

struct Change {
  std::int64_t device, is_taken, address, size;
};

std::mutex lock;  // guards changes
std::vector<Change> changes;
enum class Stop { kNone, kWanted, kStopped } stop = Stop::kNone;  // guarded by lock
std::condition_variable stop_changed;

void note(const Entry& entry) {
  const bool is_taken = entry.action_ == Entry::SEGMENT_ALLOC || entry.action_ == Entry::SEGMENT_MAP;
  if (!is_taken && entry.action_ != Entry::SEGMENT_FREE && entry.action_ != Entry::SEGMENT_UNMAP) return;
  std::unique_lock guard(lock);
  if (stop == Stop::kWanted) {
    stop = Stop::kStopped;
    stop_changed.notify_all();
    stop_changed.wait(guard, [] { return stop == Stop::kNone; });
  }
  changes.push_back({entry.device_, is_taken ? 1 : 0, static_cast<std::int64_t>(entry.addr_), static_cast<std::int64_t>(entry.size_)});
}

}  // namespace

extern "C" {

void attach_segment_tracker() { native::attachAllocatorTraceTracker(&note); }

// The next change of a segment stops the thread that makes it, with torch's own lock held, until let_go().
void stop_at_next_change() {
  const std::lock_guard guard(lock);
  stop = Stop::kWanted;
}
void wait_until_stopped() {
  std::unique_lock guard(lock);
  stop_changed.wait(guard, [] { return stop == Stop::kStopped; });
}
void let_go() {
  const std::lock_guard guard(lock);
  stop = Stop::kNone;
  stop_changed.notify_all();
}

// Moves the changes since the last call to `taken`, at most `room`; returns how many.
std::int64_t take_segment_changes(Change* taken, std::int64_t room) {
  const std::lock_guard guard(lock);
  const std::int64_t count = std::min(room, static_cast<std::int64_t>(changes.size()));
  std::copy(changes.begin(), changes.begin() + count, taken);
  changes.erase(changes.begin(), changes.begin() + count);
  return count;
}
}

namespace freeing {

std::mutex lock;  // guards the following
std::condition_variable changed;
c10::DataPtr kept;
enum class Stage { kIdle, kArmed, kStopped, kFreeing, kDone } stage = Stage::kIdle;

void go_to(Stage next) {
  const std::lock_guard guard(lock);
  stage = next;
  changed.notify_all();
}
void wait_for(Stage wanted) {
  std::unique_lock guard(lock);
  changed.wait(guard, [wanted] { return stage == wanted; });
}

class FreeKept final : public c10::FreeMemoryCallback {
 public:
  bool Execute() override {
    {
      const std::lock_guard guard(lock);
      if (stage != Stage::kArmed) return false;
    }
    go_to(Stage::kStopped);
    wait_for(Stage::kFreeing);
    kept.clear();
    go_to(Stage::kDone);
    return true;
  }
};

}  // namespace freeing

namespace c10 {
REGISTER_FREE_MEMORY_CALLBACK("ebbtide test", freeing::FreeKept)
}

extern "C" {

void* keep_block(std::size_t size) {
  freeing::kept = c10::GetAllocator(c10::kCUDA)->allocate(size);
  return freeing::kept.get();
}
// The next request that finds no cached block stops its thread there until free_kept().
void stop_at_next_callback() { freeing::go_to(freeing::Stage::kArmed); }
void wait_for_callback() { freeing::wait_for(freeing::Stage::kStopped); }
// Without Python's lock, which torch's own function keeps.
void ask_for_statistics() { static_cast<void>(c10::cuda::CUDACachingAllocator::getDeviceStats(0)); }
void free_kept() { freeing::go_to(freeing::Stage::kFreeing); }
}
