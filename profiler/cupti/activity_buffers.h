// The memory that CUPTI writes its records to.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

namespace ebbtide {

// Owns a bounded number of buffers, made when they are first needed. Thread-safe; the lock is held for a look at a short
// list, since training threads may ask.
class ActivityBuffers {
 public:
  ActivityBuffers() = default;
  // What is still out is leaked: CUPTI may write to it.
  ~ActivityBuffers();
  ActivityBuffers(const ActivityBuffers&) = delete;
  ActivityBuffers& operator=(const ActivityBuffers&) = delete;

  static constexpr std::size_t kBytes = std::size_t{1} << 20;  // some 5000 records
  static constexpr std::size_t kMost = 16;

  // `kBytes` at an address that is a multiple of 8; null when all are out.
  std::uint8_t* take() noexcept;
  // False if it is none that is out: another profiler's.
  bool give_back(const std::uint8_t* buffer) noexcept;

 private:
  struct Buffer {
    std::unique_ptr<std::uint64_t[]> memory;
    bool is_out = false;
  };
  std::mutex lock_;
  std::array<Buffer, kMost> buffers_;  // guarded by lock_
};

}  // namespace ebbtide
