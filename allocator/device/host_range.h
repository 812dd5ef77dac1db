// An arena range in ordinary host memory: address space reserved once, pages taken as they are touched.
#pragma once

#include <cstddef>

#include "allocator/device/arena_range.h"

namespace ebbtide {

// Owns one reservation of `capacity` bytes of address space, no memory until it grows.
class HostRange final : public ArenaRange {
 public:
  explicit HostRange(Bytes capacity);
  ~HostRange() override;
  HostRange(const HostRange&) = delete;
  HostRange& operator=(const HostRange&) = delete;

  void* base() const override { return base_; }
  Bytes extent() const override { return extent_; }
  bool grows_in_place() const override { return true; }
  Bytes limit() const override { return capacity_; }
  Status extend_to(Bytes wanted) override;
  void shrink_to(Bytes kept) override;
  Bytes reserved() const override { return extent_; }
  Bytes peak_reserved() const override { return peak_extent_; }
  std::int64_t upstream_trims() const override { return 0; }

 private:
  void* base_ = nullptr;  // null when the reservation failed: then nothing can be extended
  Bytes capacity_;
  Bytes extent_;          // always a multiple of the page size
  Bytes peak_extent_;
};

}  // namespace ebbtide
