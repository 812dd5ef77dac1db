#include "hooks/swap_table.h"

#include <string>
#include <utility>

#include "allocator/device/cuda_copy_device.h"
#include "allocator/device/host_copy_device.h"

namespace ebbtide {
namespace {

Result<std::unique_ptr<CopyDevice>> copy_device(int device) {
  if (device == SwapTable::kHost) {
    return std::unique_ptr<CopyDevice>(std::make_unique<HostCopyDevice>());
  }
  return CudaCopyDevice::open(device);
}

}  // namespace

Result<std::uint64_t> SwapTable::open(int device, Bytes host_budget, EventSink* sink) {
  if (is_in_child()) {
    return Error{ErrorCode::kUnsupported, "swap: not in a child process made by fork"};
  }
  Result<std::unique_ptr<CopyDevice>> copies = copy_device(device);
  if (!copies.ok()) return copies.error();
  Result<std::unique_ptr<Swap>> swap =
      Swap::open(std::move(copies).value(), {.host_budget = host_budget, .sink = sink, .device = device});
  if (!swap.ok()) return swap.error();
  const std::lock_guard lock(lock_);
  entries_[++last_number_] = {device, std::shared_ptr<Swap>(std::move(swap).value())};
  return last_number_;
}

Status SwapTable::close(std::uint64_t number) {
  if (is_in_child()) return Nothing{};
  Entry closed;
  {
    const std::lock_guard lock(lock_);
    const auto found = entries_.find(number);
    if (found == entries_.end()) {
      return Error{ErrorCode::kInvalidArgument, "swap " + std::to_string(number) + " is not open"};
    }
    closed = std::move(found->second);
    entries_.erase(found);
  }
  return Nothing{};  // what is closed ends here, outside the lock
}

SwapTable::Entry SwapTable::find(std::uint64_t number) const {
  if (is_in_child()) return {};
  const std::lock_guard lock(lock_);
  const auto found = entries_.find(number);
  return found == entries_.end() ? Entry{} : found->second;
}

std::vector<SwapTable::Entry> SwapTable::all() const {
  std::vector<Entry> entries;
  if (is_in_child()) return entries;
  const std::lock_guard lock(lock_);
  for (const auto& [number, entry] : entries_) entries.push_back(entry);
  return entries;
}

}  // namespace ebbtide
