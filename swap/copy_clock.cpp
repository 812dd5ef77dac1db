#include "swap/copy_clock.h"

#include <algorithm>
#include <optional>

namespace ebbtide {

CopyClock::~CopyClock() {
  for (const Pending& pending : pending_) give_back(pending.span);
}

void CopyClock::add(const Span& span, CopyTime& sum) {
  collect();
  if (span.start.value == 0 || span.end.value == 0 || pending_.size() == kMostPending) {
    sum.unmeasured += 1;
    give_back(span);
    return;
  }
  pending_.push_back({span, &sum});
}

void CopyClock::collect() {
  while (!pending_.empty() && collect_one(pending_.front())) pending_.pop_front();
}

bool CopyClock::collect_one(const Pending& pending) {
  const Span& span = pending.span;
  if (!device_.is_done(span.end)) return false;
  if (span.reached.value != 0 && !device_.is_done(span.reached)) return false;
  const std::optional<std::int64_t> copying = device_.elapsed_ns(span.start, span.end);
  if (!copying) {
    pending.sum->unmeasured += 1;
  } else {
    const std::int64_t length = std::max(*copying, std::int64_t{0});
    pending.sum->copying_ns += length;
    const std::optional<std::int64_t> exposed =
        span.reached.value == 0 ? std::nullopt : device_.elapsed_ns(span.reached, span.end);
    pending.sum->exposed_ns += std::clamp(exposed.value_or(0), std::int64_t{0}, length);
  }
  give_back(span);
  return true;
}

void CopyClock::give_back(const Span& span) {
  for (const EventId event : {span.start, span.end, span.reached}) events_.give_back(event);
}

}  // namespace ebbtide
