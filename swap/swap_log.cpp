#include "swap/swap_log.h"

namespace ebbtide {

void SwapLog::copied(const Copy& copy, std::int64_t begin_ns, std::int64_t length_ns, std::int64_t exposed_ns) const {
  if (sink_ == nullptr) return;
  EventRecord event;
  event.action = Action::kSwapCopied;
  event.device = device_;
  event.time_ns = static_cast<std::uint64_t>(begin_ns);
  event.address = copy.ticket;
  event.bytes = length_ns;
  event.stream = static_cast<std::uint64_t>(exposed_ns);
  event.detail = copy.is_in ? 1 : 0;
  sink_->record(event);
}

void SwapLog::pinned(Bytes bytes) {
  if (bytes == pinned_) return;
  pinned_ = bytes;
  tell(Action::kPinned, 0, bytes.value, 0);
}

void SwapLog::tell(Action action, std::uint64_t ticket, std::int64_t bytes, std::int64_t stream) const {
  if (sink_ == nullptr) return;
  EventRecord event;
  event.action = action;
  event.device = device_;
  event.address = ticket;
  event.bytes = bytes;
  event.stream = static_cast<std::uint64_t>(stream);
  sink_->record(event);
}

}  // namespace ebbtide
