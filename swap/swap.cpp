#include "swap/swap.h"

#include <string>
#include <utility>

#include "allocator/base/check.h"

namespace ebbtide {
namespace {

Error no_such_ticket(Ticket ticket) {
  return {ErrorCode::kInvalidArgument,
          "swap: ticket " + std::to_string(ticket.value) + " was released, or never was"};
}

// Of a ticket for these sources: to the end of the last one.
Result<Bytes> size_of(std::span<const SwapSource> sources) {
  Bytes end;
  for (const SwapSource& source : sources) {
    if (source.bytes <= Bytes{0} || source.bytes > PinnedSlab::kMaxBudget) {
      return Error{ErrorCode::kInvalidArgument,
                   "swap: a source of " + std::to_string(source.bytes.value) + " bytes"};
    }
    end = Places::occupied(end) + source.bytes;
    if (end > PinnedSlab::kMaxBudget) break;
  }
  if (end == Bytes{0}) return Error{ErrorCode::kInvalidArgument, "swap: nothing to swap out"};
  return end;
}

}  // namespace

Result<std::unique_ptr<Swap>> Swap::open(std::unique_ptr<CopyDevice> device,
                                         const Options& options) {
  if (options.host_budget < Bytes{0} || options.host_budget > PinnedSlab::kMaxBudget) {
    return Error{ErrorCode::kInvalidArgument,
                 "host budget " + std::to_string(options.host_budget.value) +
                     ": allowed are 0 to " + to_string(PinnedSlab::kMaxBudget)};
  }
  Result<std::unique_ptr<CopyStreams>> streams = CopyStreams::open(*device);
  if (!streams.ok()) return streams.error();
  return std::unique_ptr<Swap>(
      new Swap(std::move(device), std::move(streams).value(), options));
}

Swap::Swap(std::unique_ptr<CopyDevice> device, std::unique_ptr<CopyStreams> streams,
           const Options& options)
    : device_(std::move(device)),
      streams_(std::move(streams)),
      slab_(*device_, options.host_budget),
      places_(options.host_budget),
      events_(*device_),
      log_(options.sink, options.device),
      clock_(*device_, events_) {
  if (log_.is_on()) clock_.tell(log_, streams_->out());
}

Swap::~Swap() {
  static_cast<void>(streams_->drain(streams_->out()));
  static_cast<void>(streams_->drain(streams_->in()));
  clock_.collect();
  for (const auto& [id, entry] : tickets_) {
    give_back(entry.out);
    give_back(entry.in);
  }
}

Status Swap::reserve(Bytes bytes) {
  const std::lock_guard lock(lock_);
  Status extended = slab_.extend_to(bytes);
  log_.pinned(slab_.pinned());
  return extended;
}

Bytes Swap::room(Bytes wanted) const {
  const std::lock_guard lock(lock_);
  return places_.room(wanted, slab_.limit());
}

Result<Offset> Swap::find_place(Bytes bytes) {
  const std::optional<Offset> planned = planner_.propose(bytes);
  if (planned && places_.is_free(*planned, bytes) &&
      slab_.extend_to(Bytes{planned->value} + Places::occupied(bytes)).ok()) {
    stats_.planned_tickets += 1;
    return *planned;
  }
  const std::optional<Offset> free = places_.first_fit(bytes);
  if (!free) {
    return Error{ErrorCode::kOutOfHostMemory,
                 "swapping " + to_string(bytes) + " more does not fit into the host budget of " +
                     to_string(slab_.budget()) + ": raise it, or swap less"};
  }
  const Status extended = slab_.extend_to(Bytes{free->value} + Places::occupied(bytes));
  if (!extended.ok()) return extended.error();
  stats_.unplanned_tickets += 1;
  return *free;
}

Result<Ticket> Swap::swap_out(std::span<const SwapSource> sources, StreamId compute) {
  const Result<Bytes> total = size_of(sources);
  if (!total.ok()) return total.error();
  const std::lock_guard lock(lock_);
  const Result<Offset> place = find_place(total.value());
  if (!place.ok()) {
    stats_.refusals += 1;
    return place.error();
  }
  wait_for_released();
  Result<CopyClock::Span> events = take_events();
  if (!events.ok()) return events.error();
  Entry entry{.offset = place.value(), .bytes = total.value(), .out = events.value()};
  if (const Status queued = queue_out(entry, sources, compute); !queued.ok()) {
    // A part may be under way, and the caller is told that nothing is.
    static_cast<void>(streams_->drain(streams_->out()));
    give_back(entry.out);
    return queued.error();
  }
  entry.out_number = ++last_out_;
  places_.take(entry.offset, entry.bytes);
  entry.turn = planner_.begin(entry.bytes);
  for (const SwapSource& source : sources) stats_.swapped_out += source.bytes;
  stats_.copies_out += static_cast<std::int64_t>(sources.size());
  const Ticket ticket{++last_ticket_};
  log_.pinned(slab_.pinned());
  log_.out(ticket.value, entry.bytes, entry.offset);
  tickets_.emplace(ticket.value, entry);
  return ticket;
}

void Swap::wait_for_released() {
  if (!std::exchange(has_released_, false)) return;
  const Status ordered = streams_->order(streams_->out(), streams_->in());
  if (!ordered.ok()) static_cast<void>(streams_->drain(streams_->in()));
}

Status Swap::queue_out(const Entry& entry, std::span<const SwapSource> sources, StreamId compute) {
  if (Status ordered = streams_->order(streams_->out(), compute); !ordered.ok()) return ordered;
  if (Status started = device_->record(entry.out.start, streams_->out()); !started.ok())
    return started;
  Offset to = entry.offset;
  for (const SwapSource& source : sources) {
    if (Status copied = copy_out(to, source); !copied.ok()) return copied;
    to = to + Places::occupied(source.bytes);
  }
  return device_->record(entry.out.end, streams_->out());
}

Status Swap::copy_out(Offset to, const SwapSource& source) {
  const char* from = static_cast<const char*>(source.address);
  const Offset end = to + source.bytes;
  while (to < end) {
    const PinnedSlab::Part part = slab_.first_part(to, end - to);
    Status copied = device_->copy(slab_.at(to), from, part.bytes, streams_->out());
    if (!copied.ok()) return copied;
    to = to + part.bytes;
    from += part.bytes.value;
  }
  return Nothing{};
}

Status Swap::await_out(std::span<const Ticket> tickets, StreamId compute) {
  std::unique_lock lock(lock_);
  const Entry* last = nullptr;
  bool is_first_time = false;
  for (const Ticket ticket : tickets) {
    const Entry* entry = find(ticket);
    if (entry == nullptr) return no_such_ticket(ticket);
    if (last == nullptr || last->out_number < entry->out_number) last = entry;
    is_first_time = is_first_time || entry->out.reached.value == 0;
  }
  if (last == nullptr) return Nothing{};
  // One event tells for all of them when `compute` got here.
  const EventId here = is_first_time ? reached(compute) : EventId{};
  std::size_t users = 0;
  for (const Ticket ticket : tickets) {
    Entry& entry = *find(ticket);
    if (here.value == 0 || entry.out.reached.value != 0) continue;
    entry.out.reached = here;
    users += 1;
  }
  events_.share(here, users);
  const EventId end = last->out.end;
  lock.unlock();  // with host compute the wait is a real one
  return streams_->hold_back(compute, end, streams_->out());
}

Status Swap::swap_in(Ticket ticket, Offset from, void* target, Bytes bytes, StreamId compute) {
  const std::lock_guard lock(lock_);
  Entry* entry = find(ticket);
  if (entry == nullptr) return no_such_ticket(ticket);
  if (from < Offset{0} || bytes <= Bytes{0} || entry->bytes < Bytes{from.value} + bytes) {
    return Error{ErrorCode::kInvalidArgument,
                 "swap: the bytes asked for are not all in the ticket"};
  }
  if (entry->in.reached.value != 0) clock_.add(std::exchange(entry->in, {}), stats_.in, {ticket.value, true});
  const bool is_first = entry->in.end.value == 0;
  if (is_first) {
    const Result<CopyClock::Span> events = take_events();
    if (!events.ok()) return events.error();
    entry->in = events.value();
  }
  if (Status queued = queue_in(*entry, from, target, bytes, compute, is_first); !queued.ok()) {
    static_cast<void>(streams_->drain(streams_->in()));  // nothing may reach the target later
    return queued;
  }
  while (!returning_.empty() && find(returning_.front()) == nullptr) returning_.pop_front();
  if (returning_.empty() || returning_.back().value != ticket.value) returning_.push_back(ticket);
  log_.in(ticket.value, bytes);
  stats_.swapped_in += bytes;
  stats_.copies_in += 1;
  return Nothing{};
}

Status Swap::queue_in(Entry& entry, Offset from, void* target, Bytes bytes, StreamId compute,
                      bool is_first) {
  if (Status ordered = streams_->order(streams_->in(), compute); !ordered.ok()) return ordered;
  if (entry.out_number > known_out_) {
    if (Status behind = device_->wait(streams_->in(), entry.out.end); !behind.ok()) return behind;
    known_out_ = entry.out_number;
  }
  // After both waits: the time of a copy is not that of what it waits for.
  if (is_first) {
    if (Status started = device_->record(entry.in.start, streams_->in()); !started.ok())
      return started;
  }
  char* to = static_cast<char*>(target);
  Offset at = entry.offset + Bytes{from.value};
  const Offset end = at + bytes;
  while (at < end) {
    const PinnedSlab::Part part = slab_.first_part(at, end - at);
    const Status copied = device_->copy(to, slab_.at(at), part.bytes, streams_->in());
    if (!copied.ok()) return copied;
    at = at + part.bytes;
    to += part.bytes.value;
  }
  return device_->record(entry.in.end, streams_->in());
}

Status Swap::await_in(Ticket ticket, StreamId compute) {
  std::unique_lock lock(lock_);
  Entry* entry = find(ticket);
  if (entry == nullptr) return no_such_ticket(ticket);
  const EventId end = entry->in.end;
  if (end.value == 0) return Nothing{};
  if (entry->in.reached.value == 0) reach_in(ticket, compute);
  lock.unlock();
  return streams_->hold_back(compute, end, streams_->in());
}

void Swap::reach_in(Ticket ticket, StreamId compute) {
  const EventId here = reached(compute);
  if (here.value == 0) return;
  std::size_t users = 0;
  const auto reach = [&](Entry* entry) {
    if (entry == nullptr || entry->in.end.value == 0 || entry->in.reached.value != 0) return;
    entry->in.reached = here;
    users += 1;
  };
  for (bool is_found = false; !is_found && !returning_.empty(); returning_.pop_front()) {
    is_found = returning_.front().value == ticket.value;
    reach(find(returning_.front()));
  }
  reach(find(ticket));
  events_.share(here, users);
}

Status Swap::release(Ticket ticket) {
  const std::lock_guard lock(lock_);
  Entry* entry = find(ticket);
  if (entry == nullptr) return no_such_ticket(ticket);
  if (entry->in.end.value != 0) {
    has_released_ = true;
    clock_.add(entry->in, stats_.in, {ticket.value, true});
  }
  log_.released(ticket.value, entry->bytes);
  entry->out.bytes = entry->bytes;
  clock_.add(entry->out, stats_.out, {ticket.value, false});
  places_.give_back(entry->offset, entry->bytes);
  if (planner_.end(entry->turn)) stats_.rounds += 1;
  tickets_.erase(ticket.value);
  return Nothing{};
}

SwapStats Swap::stats() {
  const std::lock_guard lock(lock_);
  clock_.collect();
  stats_.live = places_.taken();
  stats_.peak_live = places_.peak_taken();
  stats_.slab = slab_.pinned();
  stats_.slab_limit = slab_.limit();
  stats_.budget = slab_.budget();
  stats_.growths = slab_.growths();
  stats_.host_waits = streams_->host_waits();
  stats_.plan_height = planner_.plan_height();
  stats_.plan_lower_bound = planner_.plan_lower_bound();
  return stats_;
}

void Swap::settle() {
  const std::lock_guard lock(lock_);
  planner_.settle();
}

EventId Swap::reached(StreamId compute) {
  const Result<EventId> event = events_.take();
  if (!event.ok()) return {};
  if (device_->record(event.value(), compute).ok()) return event.value();
  events_.give_back(event.value());
  return {};
}

Result<CopyClock::Span> Swap::take_events() {
  const Result<EventId> start = events_.take();
  if (!start.ok()) return start.error();
  const Result<EventId> end = events_.take();
  if (end.ok()) return CopyClock::Span{.start = start.value(), .end = end.value(), .reached = {}};
  events_.give_back(start.value());
  return end.error();
}

void Swap::give_back(const CopyClock::Span& span) {
  for (const EventId event : {span.start, span.end, span.reached}) events_.give_back(event);
}

Swap::Entry* Swap::find(Ticket ticket) {
  const auto found = tickets_.find(ticket.value);
  return found == tickets_.end() ? nullptr : &found->second;
}

bool Swap::is_valid() const {
  const std::lock_guard lock(lock_);
  Bytes taken;
  for (const auto& [id, entry] : tickets_) {
    taken += Places::occupied(entry.bytes);
    if (places_.is_free(entry.offset, entry.bytes)) return false;
    if (slab_.extent() < Bytes{entry.offset.value} + entry.bytes) return false;
  }
  return taken == places_.taken() && places_.is_valid() && slab_.is_valid() &&
         slab_.pinned() <= slab_.budget();
}

}  // namespace ebbtide
