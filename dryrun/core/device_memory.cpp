#include "dryrun/core/device_memory.h"

#include <algorithm>
#include <iterator>

namespace ebbtide::dryrun {

namespace {

// torch reserves 9/8 of the device for every expandable segment: two for each stream, of which it has dozens, and some
// more (that it keeps) for each request that is larger than the device.
constexpr std::int64_t kAddressesPerByte = 24;
constexpr Bytes kAddresses{std::int64_t{1} << 44};

}  // namespace

DeviceMemory::DeviceMemory(Bytes capacity)
    : capacity_(capacity),
      space_(kAddresses, align_up(Bytes{capacity.value * kAddressesPerByte}, kGranularity)) {}

bool DeviceMemory::is_valid() const {
  Bytes sum;
  for (const auto& [address, size] : allocations_) sum += size;
  for (const auto& [handle, physical] : physical_) {
    if (!physical.is_adopted) sum += physical.size;
  }
  return space_.is_valid() && sum == used_ && used_ <= capacity_ && used_ <= peak_;
}

bool DeviceMemory::take(Bytes size) {
  if (size > capacity_ - used_) return false;
  used_ += size;
  peak_ = std::max(peak_, used_);
  return true;
}

std::optional<std::uintptr_t> DeviceMemory::allocate(Bytes size) {
  if (size > capacity_) return {};
  const Bytes rounded = align_up(size, kGranularity);
  if (rounded > capacity_ - used_) return {};
  const auto address = space_.acquire(rounded, kGranularity);
  if (!address || !take(rounded)) return {};
  allocations_.emplace(*address, rounded);
  return address;
}

std::optional<Bytes> DeviceMemory::deallocate(std::uintptr_t address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end()) return {};
  const Bytes size = found->second;
  used_ -= size;
  allocations_.erase(found);
  space_.release(address);
  if (files_.erase(address) > 0) {
    unmap_shared(address, static_cast<std::size_t>(size.value));
  } else {
    clear_host_pages(address, static_cast<std::size_t>(size.value));
  }
  return size;
}

const SharedFile* DeviceMemory::share_allocation(std::uintptr_t address, const MakeFile& make) {
  const auto range = space_.find(address);
  if (!range || !allocations_.contains(range->first)) return nullptr;
  const auto [found, is_new] = files_.try_emplace(range->first);
  const auto size = static_cast<std::size_t>(range->second.value);
  if (is_new) found->second = make(range->first, range->second);
  if (found->second.is_open() && (!is_new || found->second.map(range->first, size))) return &found->second;
  files_.erase(found);
  return nullptr;
}

const SharedFile* DeviceMemory::share_physical(std::uint64_t handle, const MakeFile& make) {
  const auto found = physical_.find(handle);
  if (found == physical_.end()) return nullptr;
  Physical& physical = found->second;
  if (physical.file.is_open()) return &physical.file;
  const auto mapping = std::find_if(mappings_.begin(), mappings_.end(),
                                    [&](const auto& entry) { return entry.second.handle == handle; });
  const std::uintptr_t begin = mapping == mappings_.end() ? 0 : mapping->first;
  SharedFile file = make(begin, physical.size);
  if (!file.is_open() || (begin != 0 && !file.map(begin, static_cast<std::size_t>(physical.size.value)))) return nullptr;
  physical.file = std::move(file);
  return &physical.file;
}

std::optional<std::uintptr_t> DeviceMemory::open(SharedFile file, Bytes size) {
  const auto address = space_.acquire(size, kGranularity);
  if (!address) return {};
  if (!file.map(*address, static_cast<std::size_t>(size.value))) {
    space_.release(*address);
    return {};
  }
  opened_.emplace(*address, size);
  return address;
}

std::optional<Bytes> DeviceMemory::close(std::uintptr_t address) {
  const auto found = opened_.find(address);
  if (found == opened_.end()) return {};
  const Bytes size = found->second;
  opened_.erase(found);
  space_.release(address);
  unmap_shared(address, static_cast<std::size_t>(size.value));
  return size;
}

std::uint64_t DeviceMemory::adopt(SharedFile file, Bytes size) {
  physical_.emplace(next_handle_, Physical{size, 1, false, true, std::move(file)});
  return next_handle_++;
}

std::optional<std::uintptr_t> DeviceMemory::reserve(Bytes size, Bytes alignment) {
  return space_.acquire(size, std::max(alignment, kGranularity));
}

bool DeviceMemory::unreserve(std::uintptr_t address) {
  return !allocations_.contains(address) && !opened_.contains(address) && space_.release(address).has_value();
}

std::optional<std::uint64_t> DeviceMemory::create(Bytes size) {
  if (!take(size)) return {};
  physical_.emplace(next_handle_, Physical{size, 1, false, false, {}});
  return next_handle_++;
}

void DeviceMemory::drop_if_unused(std::map<std::uint64_t, Physical>::iterator it) {
  if (it->second.references > 0 || it->second.mapped) return;
  if (!it->second.is_adopted) used_ -= it->second.size;
  physical_.erase(it);
}

bool DeviceMemory::release(std::uint64_t handle) {
  const auto found = physical_.find(handle);
  if (found == physical_.end() || found->second.references == 0) return false;
  --found->second.references;
  drop_if_unused(found);
  return true;
}

bool DeviceMemory::retain(std::uint64_t handle) {
  const auto found = physical_.find(handle);
  if (found == physical_.end()) return false;
  ++found->second.references;
  return true;
}

MapStatus DeviceMemory::map(std::uintptr_t address, Bytes size, std::uint64_t handle) {
  const auto physical = physical_.find(handle);
  if (physical == physical_.end() || physical->second.size != size) return MapStatus::kNoSuchHandle;
  const auto range = space_.find(address);
  const std::uintptr_t end = address + static_cast<std::size_t>(size.value);
  if (!range || allocations_.contains(range->first) || opened_.contains(range->first) ||
      end > range->first + static_cast<std::size_t>(range->second.value)) {
    return MapStatus::kOutsideReservation;
  }
  const auto next = mappings_.lower_bound(address);
  const bool hits_next = next != mappings_.end() && next->first < end;
  const bool hits_previous =
      next != mappings_.begin() &&
      std::prev(next)->first + static_cast<std::size_t>(std::prev(next)->second.size.value) >
          address;
  if (hits_next || hits_previous || physical->second.mapped) return MapStatus::kAlreadyMapped;
  if (physical->second.file.is_open() && !physical->second.file.map(address, static_cast<std::size_t>(size.value))) {
    return MapStatus::kOutsideReservation;
  }
  physical->second.mapped = true;
  mappings_.emplace(address, Mapping{size, handle});
  return MapStatus::kOk;
}

MapStatus DeviceMemory::unmap(std::uintptr_t address, Bytes size) {
  const std::uintptr_t end = address + static_cast<std::size_t>(size.value);
  std::uintptr_t at = address;
  for (auto it = mappings_.find(address); at < end; ++it) {
    if (it == mappings_.end() || it->first != at) return MapStatus::kNotMapped;
    at += static_cast<std::size_t>(it->second.size.value);
  }
  if (at != end) return MapStatus::kNotMapped;
  for (auto it = mappings_.find(address); it != mappings_.end() && it->first < end;) {
    const auto physical = physical_.find(it->second.handle);
    physical->second.mapped = false;
    if (physical->second.file.is_open()) unmap_shared(it->first, static_cast<std::size_t>(it->second.size.value));
    drop_if_unused(physical);
    it = mappings_.erase(it);
  }
  clear_host_pages(address, static_cast<std::size_t>(size.value));
  return MapStatus::kOk;
}

std::optional<std::uint64_t> DeviceMemory::handle_at(std::uintptr_t address) const {
  auto found = mappings_.upper_bound(address);
  if (found == mappings_.begin()) return {};
  --found;
  if (address - found->first >= static_cast<std::size_t>(found->second.size.value)) return {};
  return found->second.handle;
}

}  // namespace ebbtide::dryrun
