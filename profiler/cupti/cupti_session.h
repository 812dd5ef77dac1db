// CUPTI switched on, from start to stop.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "allocator/base/result.h"
#include "profiler/cupti/activity_buffers.h"
#include "profiler/cupti/activity_decoder.h"
#include "profiler/cupti/cupti_library.h"
#include "profiler/event_ring.h"
#include "profiler/owner_names.h"

namespace ebbtide {

// Kernels, copies and memory of all devices go to the ring, as CUPTI hands them over: each 100 ms, from a thread of its
// own. There is one in a process, since CUPTI has one subscriber and its callbacks carry no data of ours. As long as it
// runs, torch.profiler and Nsight are refused by CUPTI; where one of them was first, start() is.
//
// Nothing is lost without a count: what CUPTI drops because all buffers are out, and what is dropped here because the
// ring stays half full, which is left to the allocators' events.
class CuptiSession {
 public:
  // `library`: see CuptiLibrary::load. Both must outlive the process's last callback: the ring, the names.
  static Result<std::unique_ptr<CuptiSession>> start(const std::string& library, EventRing& ring, OwnerNames& names);
  ~CuptiSession();
  CuptiSession(const CuptiSession&) = delete;
  CuptiSession& operator=(const CuptiSession&) = delete;

  // Fetches what is finished, switches everything off, gives CUPTI back. A second call does nothing.
  void stop();

  std::uint64_t written() const { return written_.load(std::memory_order_relaxed); }
  std::uint64_t lost() const { return lost_.load(std::memory_order_relaxed); }

 private:
  CuptiSession(const CuptiLibrary& library, EventRing& ring, OwnerNames& names);

  Status subscribe();
  Status enable();
  Result<std::int64_t> clock_offset() const;
  bool has_sources() const;
  void take_over(void* context, std::uint32_t stream, std::uint8_t* buffer, std::size_t valid_size);
  bool wait_for_room(int& naps_left) const;
  void tell_counts();

  static void request(std::uint8_t** buffer, std::size_t* size, std::size_t* most_records);
  static void complete(void* context, std::uint32_t stream, std::uint8_t* buffer, std::size_t size,
                       std::size_t valid_size);

  const CuptiLibrary library_;
  EventRing& ring_;
  OwnerNames& names_;
  ActivityBuffers buffers_;  // has a lock of its own
  void* subscriber_ = nullptr;  // null: stopped
  std::mutex lock_;                           // guards decoder_
  std::unique_ptr<ActivityDecoder> decoder_;  // there from start() on
  std::atomic<std::uint64_t> written_{0};
  std::atomic<std::uint64_t> lost_{0};
};

}  // namespace ebbtide
