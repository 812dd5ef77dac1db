#include "dryrun/core/address_space.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "dryrun/core/pointer.h"
#include "dryrun/core/shared_memory.h"

namespace ebbtide::dryrun {

namespace {
constexpr std::size_t kPage = 4096;
}  // namespace

AddressSpace::AddressSpace(Bytes wanted, Bytes least) {
  auto bytes = static_cast<std::size_t>(std::max(wanted, least).value);
  const auto reserve = [&bytes] {
    return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  };
  void* base = reserve();
  while (base == MAP_FAILED && bytes > static_cast<std::size_t>(least.value)) {
    bytes = std::max(bytes / 2, static_cast<std::size_t>(least.value));
    base = reserve();
  }
  if (base == MAP_FAILED) return;
  // With huge pages a four-byte write would cost two megabytes of host memory.
  madvise(base, bytes, MADV_NOHUGEPAGE);
  madvise(base, bytes, MADV_DONTDUMP);
  base_ = to_address(base);
  size_ = bytes;
}

AddressSpace::~AddressSpace() {
  if (base_ != 0) munmap(to_pointer(base_), size_);
}

std::optional<std::uintptr_t> AddressSpace::acquire(Bytes size, Bytes alignment) {
  const auto bytes = static_cast<std::size_t>(size.value);
  const auto mask = static_cast<std::uintptr_t>(alignment.value) - 1;
  std::uintptr_t candidate = (base_ + mask) & ~mask;
  for (const auto& [begin, length] : ranges_) {
    if (begin >= candidate && begin - candidate >= bytes) break;
    if (begin + length > candidate) candidate = (begin + length + mask) & ~mask;
  }
  if (!is_valid() || bytes == 0 || bytes > size_ || candidate - base_ > size_ - bytes) return {};
  ranges_.emplace(candidate, bytes);
  return candidate;
}

std::optional<Bytes> AddressSpace::release(std::uintptr_t address) {
  const auto found = ranges_.find(address);
  if (found == ranges_.end()) return {};
  const Bytes size{static_cast<std::int64_t>(found->second)};
  ranges_.erase(found);
  return size;
}

std::optional<std::pair<std::uintptr_t, Bytes>> AddressSpace::find(std::uintptr_t address) const {
  auto found = ranges_.upper_bound(address);
  if (found == ranges_.begin()) return {};
  --found;
  if (address - found->first >= found->second) return {};
  return std::pair{found->first, Bytes{static_cast<std::int64_t>(found->second)}};
}

namespace {

void clear_private(std::uintptr_t address, std::size_t size) {
  const std::uintptr_t end = address + size;
  const std::uintptr_t first_page = (address + kPage - 1) & ~(kPage - 1);
  const std::uintptr_t last_page = end & ~(kPage - 1);
  if (first_page >= last_page) {
    std::memset(to_pointer(address), 0, size);
    return;
  }
  std::memset(to_pointer(address), 0, first_page - address);
  madvise(to_pointer(first_page), last_page - first_page, MADV_DONTNEED);
  std::memset(to_pointer(last_page), 0, end - last_page);
}

}  // namespace

void clear_host_pages(std::uintptr_t address, std::size_t size) {
  std::uintptr_t at = address;
  for (const auto& [begin, length] : shared_parts(address, size)) {
    if (begin > at) clear_private(at, begin - at);
    std::memset(to_pointer(begin), 0, length);  // its pages are others', too
    at = begin + length;
  }
  if (at < address + size) clear_private(at, address + size - at);
}

}  // namespace ebbtide::dryrun
