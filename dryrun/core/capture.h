// Stream capture: what is queued on capturing streams is written down instead of done, and done by each launch of the
// graph that it becomes.
//
// The rules are CUDA's (CUDA C++ Programming Guide, "Graphs", stream capture): streams join a capture by waiting for one of
// its events, and must be joined again when it ends; what would wait for a capture, or may do so in the mode it was begun
// with, makes it invalid. A graph's parts take turns on the stream it is launched on, in the order in which they were
// captured: branches do not run beside each other.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

class StreamClock;

// A part of a graph: does on a stream what was captured.
using Deed = std::function<void(StreamClock&)>;
using Deeds = std::vector<Deed>;

// Immutable once its capture has ended.
struct Graph {
  Deeds deeds;
};

enum class CaptureMode { kGlobal, kThreadLocal, kRelaxed };
enum class CaptureStatus { kNone, kActive, kInvalidated };
enum class CaptureError {
  kNone,
  kIllegalState,   // the stream captures already, or does not capture
  kUnsupported,    // not while a stream captures
  kInvalidated,    // something else went wrong in this capture
  kMerge,          // two captures would become one
  kUnmatched,      // ended on another stream than it began on
  kUnjoined,       // a stream that joined has work that the first stream does not wait for
  kIsolation,      // a captured stream would wait for what is not captured
  kWrongThread,    // ended by another thread than began it
  kCapturedEvent,  // an event of a capture was asked for, which has no time
};

struct Capture;

// Where in a capture an event was recorded.
struct CapturedPoint {
  std::shared_ptr<Capture> capture;                  // null: the event was recorded outside of any
  std::map<const StreamClock*, std::size_t> before;  // parts of each stream that come before it
};

// All captures of the process. Thread-safe: one lock, never held while a deed is done or destroyed.
class EBBTIDE_DRYRUN_API Captures {
 public:
  static Captures& instance();

  // Whether there may be a capture at all; cheap.
  bool any() const { return count_.load(std::memory_order_acquire) > 0; }

  CaptureError begin(StreamClock& stream, CaptureMode mode);
  // Also gives the graph, unless there is an error. The capture is over either way, except for kIllegalState and kUnmatched.
  CaptureError end(StreamClock& stream, std::shared_ptr<const Graph>& graph);

  struct View {
    CaptureStatus status = CaptureStatus::kNone;
    std::uint64_t id = 0;  // never the same twice
  };
  View view(const StreamClock& stream);

  // True when the stream captures: the deed is kept, or dropped if the capture is invalid, and the caller must not do it.
  bool add(StreamClock& stream, Deed deed);
  // The point after all that the stream has captured; none when it does not capture.
  CapturedPoint record(StreamClock& stream);
  // A stream waits for an event. Requires: has to do with a capture, by its stream or its event.
  CaptureError wait(StreamClock& stream, const CapturedPoint& point, bool is_recorded);
  // The host would wait for the stream, or ask how far it is.
  CaptureError synchronise(StreamClock& stream);
  // The same for an event.
  CaptureError ask(const CapturedPoint& point);
  // A call that may wait for a capturing stream in ways that the caller does not see (cudaMalloc): invalidates the captures
  // that forbid it to this thread.
  CaptureError do_unsafe();

  // The calling thread's mode: what it lets itself do while captures go on. Returns the one before.
  static CaptureMode exchange_thread_mode(CaptureMode mode);

  // Between these the calling thread's deeds are kept in a list of its own: they are a part of what it does meanwhile.
  class Inside {
   public:
    explicit Inside(Deeds& deeds);
    ~Inside();
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Deeds* before_;
  };

 private:
  std::shared_ptr<Capture> of(const StreamClock& stream) const;
  void forget(const Capture& capture);

  std::atomic<int> count_{0};  // entries of streams_
  std::mutex mutex_;           // guards the following, and what each Capture holds
  std::map<const StreamClock*, std::shared_ptr<Capture>> streams_;
  std::uint64_t next_id_ = 1;
};

// Does all parts in turn.
EBBTIDE_DRYRUN_API void launch(const Graph& graph, StreamClock& stream);

}  // namespace ebbtide::dryrun
