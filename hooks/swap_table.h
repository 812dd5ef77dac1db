// The swaps that programs have open, by number.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "swap/swap.h"

namespace ebbtide {

// Owns them. A number is never used again, so that what outlives its swap (a tensor of an abandoned
// graph) finds nothing instead of something else. Thread-safe; a swap that is closed while another
// thread is inside it goes when that thread is out.
//
// After a fork the child has the table without the threads and the driver behind it: there, nothing
// is found, and nothing is destroyed. What is open when the process ends is left to the system: the
// driver may be gone by then.
class SwapTable {
 public:
  static constexpr int kHost = -1;

  SwapTable() = default;
  SwapTable(const SwapTable&) = delete;
  SwapTable& operator=(const SwapTable&) = delete;

  // `device`: kHost or an index of the driver's. `sink`: where what it does is recorded, or null. Returns the new swap's
  // number.
  Result<std::uint64_t> open(int device, Bytes host_budget, EventSink* sink);
  // kInvalidArgument when there is no such swap. Waits until its copies are through.
  Status close(std::uint64_t number);
  struct Entry {
    int device = kHost;
    std::shared_ptr<Swap> swap;  // null: there is no such swap
  };
  Entry find(std::uint64_t number) const;
  std::vector<Entry> all() const;
  // In a child, before anything else is asked.
  void after_fork_child() { is_in_child_.store(true, std::memory_order_relaxed); }

 private:
  bool is_in_child() const { return is_in_child_.load(std::memory_order_relaxed); }

  std::atomic<bool> is_in_child_{false};
  mutable std::mutex lock_;
  std::map<std::uint64_t, Entry> entries_;
  std::uint64_t last_number_ = 0;
};

}  // namespace ebbtide
