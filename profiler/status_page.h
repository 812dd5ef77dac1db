// A page of shared memory that says how a process is doing, for `ebbtide top`.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "allocator/base/result.h"

namespace ebbtide {

// Sizes in bytes, times in nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share. Read by
// python_shim/ebbtide/_top.py: a change of fields is a new kStatusMagic.
struct StatusDevice {
  std::int64_t device = 0;  // -1: host memory
  std::int64_t live = 0, peak_live = 0;
  std::int64_t reserved = 0, peak_reserved = 0;
  std::int64_t arena = 0;
  std::int64_t plan_height = 0;  // 0: none is in force
  std::int64_t settled_bytes = 0, settled_planned_bytes = 0;
  std::int64_t divergences = 0;
  std::int64_t rounds = 0;
};

struct Status1 {
  static constexpr std::size_t kMostDevices = 16;

  std::int64_t process = 0;
  std::int64_t started_ns = 0, updated_ns = 0;
  std::int64_t steps = 0, last_step_ns = 0;
  std::int64_t pinned = 0, host_live = 0;  // of all swaps, as what follows
  std::int64_t swapped_out = 0, swapped_in = 0;
  std::int64_t copying_ns = 0, exposed_ns = 0;  // of copies; of that nothing hid
  std::int64_t devices = 0;                     // of the array
  std::array<StatusDevice, kMostDevices> device{};
};
static_assert(std::is_trivially_copyable_v<Status1> && sizeof(Status1) == 8 * (12 + 11 * 16));

inline constexpr std::uint64_t kStatusMagic = 0x3154415453424245;  // "EBBSTAT1"

// Owns the page and its name, /dev/shm/ebbtide-<user>-<process>. One thread writes at a time; readers see the
// magic, a sequence number that is odd while the page is being written, and the status. Nobody ever waits.
class StatusPage {
 public:
  // kSystem where there is no shared memory: the program then goes on without.
  static Result<std::unique_ptr<StatusPage>> create(const std::string& path);
  // The path for this process.
  static std::string own_path();

  // The name goes; who has the page open keeps it.
  ~StatusPage();
  StatusPage(const StatusPage&) = delete;
  StatusPage& operator=(const StatusPage&) = delete;

  void publish(const Status1& status);

 private:
  struct Page;
  StatusPage(Page* page, std::string path) : page_(page), path_(std::move(path)) {}

  Page* page_;
  std::string path_;
};

}  // namespace ebbtide
