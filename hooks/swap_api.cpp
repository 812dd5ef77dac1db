// The C interface of swap/.
#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "hooks/c_status.h"
#include "hooks/ebbtide.h"
#include "hooks/registry.h"
#include "hooks/swap_table.h"

namespace ebbtide {
namespace {

ebbtide_swap_stats stats_of(const SwapTable::Entry& entry) {
  const SwapStats from = entry.swap->stats();
  ebbtide_swap_stats s{};
  s.device = entry.device;
  s.swapped_out_bytes = from.swapped_out.value;
  s.swapped_in_bytes = from.swapped_in.value;
  s.copies_out = from.copies_out;
  s.copies_in = from.copies_in;
  s.live_bytes = from.live.value;
  s.peak_live_bytes = from.peak_live.value;
  s.pinned_bytes = from.slab.value;
  s.pinned_limit_bytes = from.slab_limit.value;
  s.host_budget_bytes = from.budget.value;
  s.pinnings = from.growths;
  s.refusals = from.refusals;
  s.rounds = from.rounds;
  s.planned_tickets = from.planned_tickets;
  s.unplanned_tickets = from.unplanned_tickets;
  s.plan_height_bytes = from.plan_height.value;
  s.plan_lower_bound_bytes = from.plan_lower_bound.value;
  s.copying_out_ns = from.out.copying_ns;
  s.copying_in_ns = from.in.copying_ns;
  s.exposed_out_ns = from.out.exposed_ns;
  s.exposed_in_ns = from.in.exposed_ns;
  s.unmeasured_copies = from.out.unmeasured + from.in.unmeasured;
  s.host_waits = from.host_waits;
  s.timed_out_bytes = from.out.timed_bytes;
  return s;
}

static_assert(Places::kAlignment == Bytes{512}, "ebbtide_swap_out's comment says so");

// Runs `body(Swap&)`, which returns an ebbtide_status, unless there is no such swap.
template <typename Body>
ebbtide_status with_swap(ebbtide_swap number, Body body) noexcept {
  return guarded([&] {
    const SwapTable::Entry entry = Registry::get().swaps().find(number);
    if (entry.swap != nullptr) return body(*entry.swap);
    return fail({ErrorCode::kInvalidArgument, "swap " + std::to_string(number) + " is not open"});
  });
}

}  // namespace
}  // namespace ebbtide

using ebbtide::Bytes;
using ebbtide::guarded;
using ebbtide::Offset;
using ebbtide::Registry;
using ebbtide::status_of;
using ebbtide::StreamId;
using ebbtide::Swap;
using ebbtide::Ticket;
using ebbtide::with_swap;

ebbtide_status ebbtide_swap_open(int device, int64_t host_budget, ebbtide_swap* swap) {
  return guarded([&] {
    const auto opened = Registry::get().swaps().open(device, Bytes{host_budget}, Registry::get().sink());
    if (!opened.ok()) return ebbtide::fail(opened.error());
    *swap = opened.value();
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_swap_close(ebbtide_swap swap) {
  return guarded([&] { return status_of(Registry::get().swaps().close(swap)); });
}

ebbtide_status ebbtide_swap_reserve(ebbtide_swap swap, int64_t bytes) {
  return with_swap(swap, [&](Swap& found) { return status_of(found.reserve(Bytes{bytes})); });
}

ebbtide_status ebbtide_swap_room(ebbtide_swap swap, int64_t wanted, int64_t* bytes) {
  return with_swap(swap, [&](Swap& found) {
    *bytes = found.room(Bytes{wanted}).value;
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_swap_out(ebbtide_swap swap, const ebbtide_swap_source* sources, size_t count,
                                uint64_t compute_stream, uint64_t* ticket) {
  return with_swap(swap, [&](Swap& found) {
    // The usual few need no memory of their own.
    std::array<ebbtide::SwapSource, 16> few;
    std::vector<ebbtide::SwapSource> many(count > few.size() ? count : 0);
    const std::span all = many.empty() ? std::span(few).first(count) : std::span(many);
    std::transform(sources, sources + count, all.begin(), [](const ebbtide_swap_source& source) {
      return ebbtide::SwapSource{reinterpret_cast<const void*>(source.address),
                                 Bytes{source.bytes}};
    });
    const auto out = found.swap_out(all, StreamId{compute_stream});
    if (!out.ok()) return ebbtide::fail(out.error());
    *ticket = out.value().value;
    return EBBTIDE_OK;
  });
}

ebbtide_status ebbtide_swap_await_out(ebbtide_swap swap, uint64_t ticket, uint64_t compute_stream) {
  return with_swap(swap, [&](Swap& found) {
    return status_of(found.await_out(Ticket{ticket}, StreamId{compute_stream}));
  });
}

ebbtide_status ebbtide_swap_await_all_out(ebbtide_swap swap, const uint64_t* tickets, size_t count,
                                          uint64_t compute_stream) {
  return with_swap(swap, [&](Swap& found) {
    std::vector<Ticket> all(count);
    std::transform(tickets, tickets + count, all.begin(), [](uint64_t ticket) { return Ticket{ticket}; });
    return status_of(found.await_out(all, StreamId{compute_stream}));
  });
}

ebbtide_status ebbtide_swap_in(ebbtide_swap swap, uint64_t ticket, int64_t from, void* target,
                               int64_t bytes, uint64_t compute_stream) {
  return with_swap(swap, [&](Swap& found) {
    return status_of(found.swap_in(Ticket{ticket}, Offset{from}, target, Bytes{bytes},
                                   StreamId{compute_stream}));
  });
}

ebbtide_status ebbtide_swap_await_in(ebbtide_swap swap, uint64_t ticket, uint64_t compute_stream) {
  return with_swap(swap, [&](Swap& found) {
    return status_of(found.await_in(Ticket{ticket}, StreamId{compute_stream}));
  });
}

ebbtide_status ebbtide_swap_release(ebbtide_swap swap, uint64_t ticket) {
  return with_swap(swap, [&](Swap& found) { return status_of(found.release(Ticket{ticket})); });
}

ebbtide_status ebbtide_swap_get_stats(ebbtide_swap swap, ebbtide_swap_stats* stats) {
  return guarded([&] {
    const ebbtide::SwapTable::Entry entry = Registry::get().swaps().find(swap);
    if (entry.swap == nullptr) {
      return ebbtide::fail(ebbtide::Error{ebbtide::ErrorCode::kInvalidArgument,
                                          "swap " + std::to_string(swap) + " is not open"});
    }
    ebbtide::copy_known(ebbtide::stats_of(entry), stats);
    return EBBTIDE_OK;
  });
}
