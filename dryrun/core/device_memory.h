// The memory of one simulated device: addresses, and exact accounting of what is taken from it.
//
// Owns its address space. Not thread-safe: its owner locks. Invariant: used <= capacity; used is
// the sum of live allocations and live physical handles of this process, each rounded up to the driver's
// granularity.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "allocator/base/units.h"
#include "dryrun/core/address_space.h"
#include "dryrun/core/shared_memory.h"

namespace ebbtide::dryrun {

inline constexpr Bytes kGranularity{std::int64_t{2} << 20};

enum class MapStatus { kOk, kNoSuchHandle, kAlreadyMapped, kOutsideReservation, kNotMapped };

class DeviceMemory {
 public:
  explicit DeviceMemory(Bytes capacity);

  bool is_valid() const;
  Bytes capacity() const { return capacity_; }
  Bytes used() const { return used_; }
  Bytes peak() const { return peak_; }
  void reset_peak() { peak_ = used_; }
  bool contains(std::uintptr_t address) const { return space_.contains(address); }

  // Nothing when the capacity does not suffice.
  std::optional<std::uintptr_t> allocate(Bytes size);
  // The freed range's size; nothing when no allocation begins there.
  std::optional<Bytes> deallocate(std::uintptr_t address);
  // The live allocation or reservation around `address`.
  std::optional<std::pair<std::uintptr_t, Bytes>> find(std::uintptr_t address) const {
    return space_.find(address);
  }

  // The driver's virtual memory calls: reserve addresses, create physical memory, map one to the
  // other.
  std::optional<std::uintptr_t> reserve(Bytes size, Bytes alignment);
  bool unreserve(std::uintptr_t address);
  std::optional<std::uint64_t> create(Bytes size);
  // The memory goes back when the handle is released and nothing maps it.
  bool release(std::uint64_t handle);
  MapStatus map(std::uintptr_t address, Bytes size, std::uint64_t handle);
  MapStatus unmap(std::uintptr_t address, Bytes size);
  std::optional<std::uint64_t> handle_at(std::uintptr_t address) const;
  bool retain(std::uint64_t handle);

  // Memory shared with other processes. The file that stands for the allocation around `address`, or for a handle; made by
  // `make(begin, size)` where there is none yet (begin: 0 for a handle that is not mapped). Null: there is no such memory.
  using MakeFile = std::function<SharedFile(std::uintptr_t begin, Bytes size)>;
  const SharedFile* share_allocation(std::uintptr_t address, const MakeFile& make);
  const SharedFile* share_physical(std::uint64_t handle, const MakeFile& make);
  // Other processes' memory: takes none of the capacity.
  std::optional<std::uintptr_t> open(SharedFile file, Bytes size);
  std::optional<Bytes> close(std::uintptr_t address);
  std::uint64_t adopt(SharedFile file, Bytes size);

 private:
  struct Physical {
    Bytes size;
    int references = 1;
    bool mapped = false;
    bool is_adopted = false;  // another process's
    SharedFile file;
  };
  struct Mapping {
    Bytes size;
    std::uint64_t handle;
  };

  bool take(Bytes size);
  void drop_if_unused(std::map<std::uint64_t, Physical>::iterator it);

  Bytes capacity_;
  Bytes used_;
  Bytes peak_;
  AddressSpace space_;
  std::map<std::uintptr_t, Bytes> allocations_;
  std::map<std::uintptr_t, SharedFile> files_;  // of allocations that are shared
  std::map<std::uintptr_t, Bytes> opened_;      // allocations of other processes
  std::map<std::uint64_t, Physical> physical_;
  std::map<std::uintptr_t, Mapping> mappings_;
  std::uint64_t next_handle_ = 1;
};

}  // namespace ebbtide::dryrun
