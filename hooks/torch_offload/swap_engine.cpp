#include "hooks/torch_offload/swap_engine.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <stdexcept>

namespace ebbtide::offload {
namespace {

void check(ebbtide_status status) {
  if (status != EBBTIDE_OK)
    throw std::runtime_error(std::string("offload: ") + ebbtide_last_error());
}

}  // namespace

SwapEngine::SwapEngine(at::Device device, std::int64_t host_budget) : device_(device) {
  check(ebbtide_swap_open(device.is_cpu() ? -1 : device.index(), host_budget, &number_));
}

SwapEngine::~SwapEngine() { ebbtide_swap_close(number_); }

std::uint64_t SwapEngine::stream() const {
  if (device_.is_cpu()) return 0;
  const c10::impl::VirtualGuardImpl guard(device_.type());
  return reinterpret_cast<std::uint64_t>(guard.getStreamNativeHandle(guard.getStream(device_)));
}

std::int64_t SwapEngine::room(std::int64_t wanted) const {
  std::int64_t bytes = 0;
  check(ebbtide_swap_room(number_, wanted, &bytes));
  return bytes;
}

std::optional<std::uint64_t> SwapEngine::swap_out(c10::ArrayRef<ebbtide_swap_source> sources,
                                                  std::uint64_t stream) {
  std::uint64_t ticket = 0;
  const ebbtide_status status =
      ebbtide_swap_out(number_, sources.data(), sources.size(), stream, &ticket);
  if (status == EBBTIDE_OUT_OF_HOST_MEMORY) return std::nullopt;
  check(status);
  return ticket;
}

void SwapEngine::await_out(c10::ArrayRef<std::uint64_t> tickets, std::uint64_t stream) {
  check(ebbtide_swap_await_all_out(number_, tickets.data(), tickets.size(), stream));
}

void SwapEngine::swap_in(std::uint64_t ticket, void* target, std::int64_t bytes,
                         std::uint64_t stream) {
  check(ebbtide_swap_in(number_, ticket, 0, target, bytes, stream));
}

void SwapEngine::await_in(std::uint64_t ticket, std::uint64_t stream) {
  check(ebbtide_swap_await_in(number_, ticket, stream));
}

void SwapEngine::release(std::uint64_t ticket, std::uint64_t stream, bool leaving,
                         bool landing) noexcept {
  if (leaving) ebbtide_swap_await_out(number_, ticket, stream);
  if (landing) ebbtide_swap_await_in(number_, ticket, stream);
  ebbtide_swap_release(number_, ticket);
}

ebbtide_swap_stats SwapEngine::stats() const {
  ebbtide_swap_stats stats{};
  stats.struct_size = sizeof(stats);
  check(ebbtide_swap_get_stats(number_, &stats));
  return stats;
}

}  // namespace ebbtide::offload
