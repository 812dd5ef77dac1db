// The C interface of swap/ as an object.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "hooks/ebbtide.h"

namespace ebbtide::offload {

// Copies between a device and pinned host memory. Thread-safe. Who owns the memory behind an
// address keeps it alive until the copy was awaited. Throws std::runtime_error for what the engine
// refuses.
class SwapEngine {
 public:
  // Each source of a ticket begins at a multiple of this.
  static constexpr std::int64_t kAlignment = 512;
  // Bytes that so many take in host memory.
  static constexpr std::int64_t occupied(std::int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  SwapEngine(at::Device device, std::int64_t host_budget);
  // Waits until copies are through and gives the host memory back.
  ~SwapEngine();
  SwapEngine(const SwapEngine&) = delete;
  SwapEngine& operator=(const SwapEngine&) = delete;

  // The current compute stream of the device as a number; 0 for host tensors, whose caller is the
  // stream.
  std::uint64_t stream() const;
  // Under which the C interface knows it.
  ebbtide_swap number() const { return number_; }
  // How much of `wanted` bytes one swap_out could take now.
  std::int64_t room(std::int64_t wanted) const;
  // Queues copies to the host. None: there is no host memory for them.
  std::optional<std::uint64_t> swap_out(c10::ArrayRef<ebbtide_swap_source> sources,
                                        std::uint64_t stream);
  // Of all these tickets, at the price of one.
  void await_out(c10::ArrayRef<std::uint64_t> tickets, std::uint64_t stream);
  void swap_in(std::uint64_t ticket, void* target, std::int64_t bytes, std::uint64_t stream);
  void await_in(std::uint64_t ticket, std::uint64_t stream);
  // Forgets a ticket, with its copy out or in awaited before if that still works on memory of ours.
  // Never throws: it runs where objects end.
  void release(std::uint64_t ticket, std::uint64_t stream, bool leaving, bool landing) noexcept;
  ebbtide_swap_stats stats() const;

 private:
  at::Device device_;
  ebbtide_swap number_ = 0;
};

}  // namespace ebbtide::offload
