#include "swap/pinned_slab.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "allocator/base/check.h"
#include "allocator/base/log.h"
#include "allocator/device/memory_node.h"

namespace ebbtide {
namespace {

// A step is a 32nd of what is there already, so that unknown sizes cost at most 3 % too much and
// pinning is asked for seldom.
constexpr std::int64_t kStepShare = 32;
constexpr Bytes kSmallestStep{2 * kMiB.value};
constexpr Bytes kSpare{16 * kMiB.value};
constexpr Bytes kSmallestBudgetWithSpare = kGiB;

Bytes page() { return {::sysconf(_SC_PAGESIZE)}; }

Error cannot_pin(Bytes extent, const std::string& reason) {
  return {ErrorCode::kOutOfHostMemory,
          "cannot hold " + to_string(extent) + " of pinned host memory: " + reason};
}

}  // namespace

PinnedSlab::PinnedSlab(CopyDevice& device, Bytes budget)
    : device_(device), budget_(budget), reserved_(budget - Bytes{budget.value % page().value}) {
  EBBTIDE_CHECK(Bytes{0} <= budget && budget <= kMaxBudget);
  if (reserved_ == Bytes{0}) return;
  void* place = ::mmap(nullptr, static_cast<std::size_t>(reserved_.value), PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) {
    EBBTIDE_WARN("host memory for swapping: no address space for %s: %s", to_string(budget).c_str(),
                 std::strerror(errno));
    return;
  }
  base_ = static_cast<char*>(place);
  limit_ = reserved_;
}

PinnedSlab::~PinnedSlab() {
  drop_spare();
  for (const Offset start : starts_) device_.unpin(at(start));
  if (base_ != nullptr) ::munmap(base_, static_cast<std::size_t>(reserved_.value));
}

Status PinnedSlab::extend_to(Bytes wanted) {
  if (wanted <= extent_) return Nothing{};
  if (wanted > limit_) {
    return Error{ErrorCode::kOutOfHostMemory,
                 "swapping needs " + to_string(wanted) + " of host memory, and " +
                     to_string(limit_) + " may be used: raise the host budget, or swap less"};
  }
  const Bytes step{std::max(extent_.value / kStepShare, kSmallestStep.value)};
  const Bytes generous =
      std::min(align_up(std::max(wanted, extent_ + step), kSmallestStep), limit_);
  const Bytes enough = align_up(wanted, page());
  if (starts_.empty()) pin_spare();
  if (generous > reserved_ - spare_) drop_spare();
  Status pinned = pin_up_to(generous);
  if (!pinned.ok() && enough < generous) pinned = pin_up_to(enough);
  if (!pinned.ok()) {
    take_what_is_granted(enough - extent_);
    drop_spare();
    EBBTIDE_WARN("%s; going on with %s", pinned.error().message.c_str(),
                 to_string(extent_).c_str());
  }
  EBBTIDE_DCHECK(is_valid());
  return pinned;
}

void PinnedSlab::take_what_is_granted(Bytes refused) {
  for (Bytes growth = refused; growth >= kSmallestStep;) {
    growth = align_up(Bytes{growth.value / 2}, page());
    if (pin_up_to(extent_ + growth).ok()) break;
  }
  limit_ = extent_;
}

void PinnedSlab::pin_spare() {
  if (reserved_ < kSmallestBudgetWithSpare) return;
  if (pin(reserved_ - kSpare, kSpare).ok()) spare_ = kSpare;
}

void PinnedSlab::drop_spare() {
  if (spare_ == Bytes{0}) return;
  char* const place = base_ + (reserved_ - spare_).value;
  device_.unpin(place);
  ::madvise(place, static_cast<std::size_t>(spare_.value), MADV_DONTNEED);
  spare_ = Bytes{0};
}

Status PinnedSlab::pin_up_to(Bytes extent) {
  Status pinned = pin(extent_, extent - extent_);
  if (!pinned.ok()) return cannot_pin(extent, pinned.error().message);
  starts_.push_back(Offset{extent_.value});
  extent_ = extent;
  return pinned;
}

Status PinnedSlab::pin(Bytes from, Bytes growth) {
  char* const place = base_ + from.value;
  const auto size = static_cast<std::size_t>(growth.value);
  if (::mprotect(place, size, PROT_READ | PROT_WRITE) != 0) {
    return Error{ErrorCode::kOutOfHostMemory, std::strerror(errno)};
  }
  if (const std::optional<int> node = device_.numa_node()) prefer_memory_node(place, growth, *node);
  ::madvise(place, size, MADV_HUGEPAGE);  // fewer pages to pin; where it is not supported, nothing
  Status pinned = device_.pin(place, growth);
  if (!pinned.ok()) {
    ::madvise(place, size, MADV_DONTNEED);
    ::mprotect(place, size, PROT_NONE);
  }
  return pinned;
}

PinnedSlab::Part PinnedSlab::first_part(Offset offset, Bytes bytes) const {
  const Offset end = offset + bytes;
  EBBTIDE_CHECK(Offset{0} <= offset && end.value <= extent_.value);
  const auto next = std::upper_bound(starts_.begin(), starts_.end(), offset);
  return {offset, (next == starts_.end() ? end : std::min(end, *next)) - offset};
}

bool PinnedSlab::is_valid() const {
  if (Bytes{0} > extent_ || extent_ > limit_ || limit_ > budget_) return false;
  if (pinned() > budget_) return false;
  if (starts_.empty()) return extent_ == Bytes{0};
  return starts_.front() == Offset{0} && std::is_sorted(starts_.begin(), starts_.end()) &&
         starts_.back().value < extent_.value;
}

}  // namespace ebbtide
