#include "dryrun/core/capture.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace ebbtide::dryrun {

using Points = std::map<const StreamClock*, std::size_t>;

struct Capture {
  std::uint64_t id = 0;
  CaptureMode mode = CaptureMode::kGlobal;
  const StreamClock* origin = nullptr;
  std::thread::id thread;
  bool is_valid = true;
  bool is_over = false;
  Deeds deeds;
  std::map<const StreamClock*, Points> seen;  // by stream: parts of each stream that come before its next one
};

namespace {

thread_local Deeds* inside = nullptr;
thread_local CaptureMode thread_mode = CaptureMode::kGlobal;

void raise_to(Points& points, const Points& other) {
  for (const auto& [stream, count] : other) points[stream] = std::max(points[stream], count);
}

std::size_t count_in(const Points& points, const StreamClock* stream) {
  const auto found = points.find(stream);
  return found == points.end() ? 0 : found->second;
}

// Whether the first stream waits for all that the others have captured.
bool is_joined(const Capture& capture) {
  const Points& of_origin = capture.seen.at(capture.origin);
  return std::all_of(capture.seen.begin(), capture.seen.end(), [&](const auto& entry) {
    return count_in(of_origin, entry.first) >= count_in(entry.second, entry.first);
  });
}

bool is_forbidden_in(const Capture& capture) {
  if (thread_mode == CaptureMode::kRelaxed || capture.mode == CaptureMode::kRelaxed) return false;
  if (capture.thread == std::this_thread::get_id()) return true;
  return thread_mode == CaptureMode::kGlobal && capture.mode == CaptureMode::kGlobal;
}

CaptureError invalidate(Capture& capture, CaptureError reason) {
  if (!capture.is_valid) return CaptureError::kInvalidated;
  capture.is_valid = false;
  return reason;
}

}  // namespace

Captures& Captures::instance() {
  static Captures* captures = new Captures();  // never destroyed: threads call until the process is gone
  return *captures;
}

std::shared_ptr<Capture> Captures::of(const StreamClock& stream) const {
  const auto found = streams_.find(&stream);
  return found == streams_.end() ? nullptr : found->second;
}

void Captures::forget(const Capture& capture) {
  std::erase_if(streams_, [&](const auto& entry) { return entry.second.get() == &capture; });
  count_.store(static_cast<int>(streams_.size()), std::memory_order_release);
}

CaptureError Captures::begin(StreamClock& stream, CaptureMode mode) {
  const std::lock_guard lock(mutex_);
  if (of(stream) != nullptr) return CaptureError::kIllegalState;
  auto capture = std::make_shared<Capture>();
  capture->id = next_id_++;
  capture->mode = mode;
  capture->origin = &stream;
  capture->thread = std::this_thread::get_id();
  capture->seen[&stream];
  streams_.emplace(&stream, std::move(capture));
  count_.store(static_cast<int>(streams_.size()), std::memory_order_release);
  return CaptureError::kNone;
}

CaptureError Captures::end(StreamClock& stream, std::shared_ptr<const Graph>& graph) {
  std::shared_ptr<Capture> capture;  // what it kept goes without the lock
  const std::lock_guard lock(mutex_);
  capture = of(stream);
  if (capture == nullptr) return CaptureError::kIllegalState;
  if (capture->origin != &stream) return invalidate(*capture, CaptureError::kUnmatched);
  const bool is_foreign = capture->mode != CaptureMode::kRelaxed && capture->thread != std::this_thread::get_id();
  if (is_foreign) return invalidate(*capture, CaptureError::kWrongThread);
  capture->is_over = true;
  forget(*capture);
  if (!capture->is_valid) return CaptureError::kInvalidated;
  if (!is_joined(*capture)) return CaptureError::kUnjoined;
  graph = std::make_shared<const Graph>(Graph{std::move(capture->deeds)});
  return CaptureError::kNone;
}

Captures::View Captures::view(const StreamClock& stream) {
  if (!any()) return {};
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Capture> capture = of(stream);
  if (capture == nullptr) return {};
  return {capture->is_valid ? CaptureStatus::kActive : CaptureStatus::kInvalidated, capture->id};
}

bool Captures::add(StreamClock& stream, Deed deed) {
  if (!any()) return false;
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Capture> capture = of(stream);
  if (capture == nullptr) return false;
  ++capture->seen[&stream][&stream];
  if (capture->is_valid) (inside != nullptr ? *inside : capture->deeds).push_back(std::move(deed));
  return true;
}

CapturedPoint Captures::record(StreamClock& stream) {
  if (!any()) return {};
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Capture> capture = of(stream);
  if (capture == nullptr) return {};
  return {capture, capture->seen[&stream]};
}

CaptureError Captures::wait(StreamClock& stream, const CapturedPoint& point, bool is_recorded) {
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Capture> capture = of(stream);
  if (point.capture == nullptr) {
    // To wait for an event that was never recorded is nothing.
    return capture == nullptr || !is_recorded ? CaptureError::kNone : invalidate(*capture, CaptureError::kIsolation);
  }
  if (point.capture->is_over) {
    return capture == nullptr ? CaptureError::kCapturedEvent : invalidate(*capture, CaptureError::kIsolation);
  }
  if (capture != nullptr && capture != point.capture) {
    static_cast<void>(invalidate(*point.capture, CaptureError::kMerge));
    return invalidate(*capture, CaptureError::kMerge);
  }
  if (!point.capture->is_valid) return CaptureError::kInvalidated;
  if (capture == nullptr) {
    streams_.emplace(&stream, point.capture);
    count_.store(static_cast<int>(streams_.size()), std::memory_order_release);
  }
  raise_to(point.capture->seen[&stream], point.before);
  return CaptureError::kNone;
}

CaptureError Captures::synchronise(StreamClock& stream) {
  if (!any()) return CaptureError::kNone;
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Capture> capture = of(stream);
  return capture == nullptr ? CaptureError::kNone : invalidate(*capture, CaptureError::kUnsupported);
}

CaptureError Captures::ask(const CapturedPoint& point) {
  if (point.capture == nullptr) return CaptureError::kNone;
  const std::lock_guard lock(mutex_);
  if (!point.capture->is_over) static_cast<void>(invalidate(*point.capture, CaptureError::kCapturedEvent));
  return CaptureError::kCapturedEvent;
}

CaptureError Captures::do_unsafe() {
  if (!any()) return CaptureError::kNone;
  const std::lock_guard lock(mutex_);
  CaptureError error = CaptureError::kNone;
  for (const auto& [stream, capture] : streams_) {
    if (!is_forbidden_in(*capture)) continue;
    static_cast<void>(invalidate(*capture, CaptureError::kUnsupported));
    error = CaptureError::kUnsupported;
  }
  return error;
}

CaptureMode Captures::exchange_thread_mode(CaptureMode mode) { return std::exchange(thread_mode, mode); }

Captures::Inside::Inside(Deeds& deeds) : before_(std::exchange(inside, &deeds)) {}
Captures::Inside::~Inside() { inside = before_; }

void launch(const Graph& graph, StreamClock& stream) {
  for (const Deed& deed : graph.deeds) deed(stream);
}

}  // namespace ebbtide::dryrun
