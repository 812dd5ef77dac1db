#include "swap/copy_clock.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace ebbtide {
namespace {

// CUDA tells times as floats of milliseconds: to a microsecond up to here.
constexpr std::int64_t kFarNs = 10'000'000'000;

}  // namespace

CopyClock::~CopyClock() {
  for (const Pending& pending : pending_) give_back(pending.span);
  events_.give_back(anchor_.event);
}

void CopyClock::tell(const SwapLog& log, StreamId idle) {
  const Result<EventId> event = events_.take();
  if (!event.ok()) return;
  if (!device_.record(event.value(), idle).ok()) {
    events_.give_back(event.value());
    return;
  }
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  anchor_ = {event.value(), std::chrono::nanoseconds(now).count()};
  log_ = &log;
}

void CopyClock::add(const Span& span, CopyTime& sum, SwapLog::Copy copy) {
  if (++added_ % kLookEvery == 0 || pending_.size() == kMostPending) collect();
  if (span.start.value == 0 || span.end.value == 0 || pending_.size() == kMostPending) {
    sum.unmeasured += 1;
    give_back(span);
    return;
  }
  pending_.push_back({span, &sum, copy});
}

void CopyClock::collect() {
  while (!pending_.empty() && collect_one(pending_.front())) pending_.pop_front();
}

bool CopyClock::collect_one(Pending& pending) {
  const Span& span = pending.span;
  // Whether a copy is done need not be asked where its time is told.
  const std::optional<std::int64_t> copying = device_.elapsed_ns(span.start, span.end);
  if (!copying && !device_.is_done(span.end)) return false;
  const std::optional<std::int64_t> exposed =
      span.reached.value == 0 ? std::nullopt : device_.elapsed_ns(span.reached, span.end);
  if (!exposed && span.reached.value != 0 && !device_.is_done(span.reached)) return false;
  if (!copying) {
    pending.sum->unmeasured += 1;
  } else {
    const std::int64_t length = std::max(*copying, std::int64_t{0});
    pending.sum->copying_ns += length;
    pending.sum->timed_bytes += span.bytes.value;
    const std::int64_t stood_still = std::clamp(exposed.value_or(0), std::int64_t{0}, length);
    pending.sum->exposed_ns += stood_still;
    if (log_ != nullptr) log_copy(pending, length, stood_still);
  }
  give_back(span);
  return true;
}

void CopyClock::log_copy(Pending& pending, std::int64_t length, std::int64_t exposed) {
  const std::optional<std::int64_t> since = device_.elapsed_ns(anchor_.event, pending.span.start);
  if (!since) return;
  log_->copied(pending.copy, anchor_.time_ns + *since, length, exposed);
  if (*since < kFarNs) return;
  anchor_.time_ns += *since;
  std::swap(anchor_.event, pending.span.start);
}

void CopyClock::give_back(const Span& span) {
  for (const EventId event : {span.start, span.end, span.reached}) events_.give_back(event);
}

}  // namespace ebbtide
