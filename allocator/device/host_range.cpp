#include "allocator/device/host_range.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

constexpr Bytes kGrain{2 * kMiB.value};  // a transparent huge page

char* byte_at(void* base, Bytes offset) { return static_cast<char*>(base) + offset.value; }

}  // namespace

HostRange::HostRange(Bytes capacity) : capacity_(align_up(capacity, kGrain)) {
  void* place = ::mmap(nullptr, static_cast<std::size_t>(capacity_.value), PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) {
    EBBTIDE_WARN("host arena: cannot reserve %s of address space: %s",
                 to_string(capacity_).c_str(), std::strerror(errno));
    return;
  }
  base_ = place;
}

HostRange::~HostRange() {
  if (base_ != nullptr) ::munmap(base_, static_cast<std::size_t>(capacity_.value));
}

Status HostRange::extend_to(Bytes wanted) {
  const Bytes target = align_up(wanted, kGrain);
  if (target <= extent_) return Nothing{};
  if (base_ == nullptr || target > capacity_) {
    return Error{ErrorCode::kOutOfHostMemory, "the host arena's address space is used up"};
  }
  const auto growth = static_cast<std::size_t>((target - extent_).value);
  if (::mprotect(byte_at(base_, extent_), growth, PROT_READ | PROT_WRITE) != 0) {
    return Error{ErrorCode::kOutOfHostMemory, std::string("mprotect: ") + std::strerror(errno)};
  }
  extent_ = target;
  peak_extent_ = std::max(peak_extent_, extent_);
  return Nothing{};
}

void HostRange::shrink_to(Bytes kept) {
  const Bytes target = align_up(kept, kGrain);
  if (target >= extent_) return;
  const auto freed = static_cast<std::size_t>((extent_ - target).value);
  ::madvise(byte_at(base_, target), freed, MADV_DONTNEED);
  ::mprotect(byte_at(base_, target), freed, PROT_NONE);
  extent_ = target;
}

}  // namespace ebbtide
