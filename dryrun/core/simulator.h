// The simulated machine: its devices, what their memory holds, and what was asked of them.
//
// One per process, made at the first call that needs a device. Owns the devices' memory and the
// pinned host memory. Thread-safe: one lock for everything, never held while calling out.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dryrun/core/contents.h"
#include "dryrun/core/counters.h"
#include "dryrun/core/device_memory.h"
#include "dryrun/core/export.h"
#include "dryrun/core/memory_curve.h"
#include "dryrun/core/settings.h"
#include "dryrun/core/timeline.h"

namespace ebbtide::dryrun {

enum class MemoryKind { kUnregistered, kPinned, kDevice };

struct PointerFacts {
  MemoryKind kind = MemoryKind::kUnregistered;
  int device = 0;
  std::uintptr_t begin = 0;  // of the allocation around the pointer; 0 if there is none
  Bytes size;
};

struct ByteRange {
  char* begin;
  std::size_t size;
};

struct DeviceUse {
  Bytes capacity, used, peak;
};

class EBBTIDE_DRYRUN_API Simulator {
 public:
  // Wrong settings print one line and simulate no device.
  static Simulator& instance();

  const Settings& settings() const { return settings_; }
  const DeviceModel& model() const { return settings_.model; }
  int device_count() const { return static_cast<int>(devices_.size()); }
  Counters& counters() { return counters_; }
  Timeline& timeline() { return *timeline_; }
  MemoryCurve& memory_curve() { return memory_curve_; }
  Bytes pinned();
  DeviceUse use(int device);
  void reset_peak(int device);

  // Zero is "out of memory". Requires of every function with a device: 0 <= device <
  // device_count().
  std::uintptr_t allocate(int device, Bytes size);
  bool deallocate(std::uintptr_t address);
  std::uintptr_t reserve(int device, Bytes size, Bytes alignment);
  bool unreserve(std::uintptr_t address);
  // Handles carry their device. Zero is "out of memory".
  std::uint64_t create_physical(int device, Bytes size);
  bool release_physical(std::uint64_t handle);
  MapStatus map(std::uintptr_t address, Bytes size, std::uint64_t handle);
  MapStatus unmap(std::uintptr_t address, Bytes size);
  // The physical handle mapped at an address, with one more reference; zero if there is none.
  std::uint64_t retain_physical(std::uintptr_t address);
  static int device_of_handle(std::uint64_t handle);

  // Between processes (core/shared_memory.h). The descriptor of a file for the allocation around an address, or
  // for a physical handle, which it goes with; -1: there is none, or the host refuses. What opens one is memory of `device`
  // without taking any.
  int share(const void* pointer);
  int share_physical(std::uint64_t handle);
  std::uintptr_t open_shared(int device, SharedFile file);
  bool close_shared(std::uintptr_t address);
  std::uint64_t adopt_physical(int device, SharedFile file);

  // Whether the system grants so much more pinned memory. Both of the next two need it.
  bool can_pin(std::size_t size);
  Bytes peak_pinned();
  void* allocate_pinned(std::size_t size);
  bool deallocate_pinned(void* pointer);
  bool register_host(void* pointer, std::size_t size);
  bool unregister_host(void* pointer);
  PointerFacts facts(const void* pointer);

  // Copies and fills, as streams would do them in program order. What was not computed reads as what
  // the operator's context puts there, or as zero.
  void copy(void* target, const void* source, std::size_t size);
  void fill(void* target, int value, std::size_t size);

  void mark(const void* pointer, std::size_t size, Content content);
  Content content(const void* pointer, std::size_t size);
  // Fills what was not computed with zeros, so that the bytes can be read in place; they count as
  // derived. Returns where that was.
  std::vector<ByteRange> materialise(void* pointer, std::size_t size);
  // Device memory holds these bytes from now on, as derived ones; false: it is none.
  bool put(void* target, const void* source, std::size_t size);

  // "aten::_local_scalar_dense (float32 [1])" of the first read of what was not computed; "" if
  // none.
  std::string first_uncomputed_read();

 private:
  struct PinnedRange {
    std::size_t size;
    bool owned;
  };

  Simulator();

  DeviceMemory* memory_of(std::uintptr_t address);
  bool is_pinned(std::uintptr_t address) const;
  bool is_registered(std::uintptr_t address) const;
  void copy_to_stash(std::uintptr_t target, std::uintptr_t source, std::size_t size);
  void copy_from_stash(std::uintptr_t target, std::uintptr_t source, std::size_t size, bool moves);
  void copy_to_device(std::uintptr_t target, std::uintptr_t source, std::size_t size, bool moves);
  void copy_on_device(std::uintptr_t target, std::uintptr_t source, std::size_t size, bool moves);
  // Returns whether something that was not computed was read; adds where typical values belong.
  bool copy_to_host(std::uintptr_t target, std::uintptr_t source, std::size_t size, bool moves,
                    std::vector<ByteRange>& typical);
  void read_scratch(std::uintptr_t target, std::size_t size);
  void note_uncomputed_read(std::size_t size);

  void pin(std::size_t size);
  SharedFile make_file(std::uintptr_t begin, Bytes size);
  SharedFile::Note note_of(std::uintptr_t begin, Bytes size) const;
  void mark(std::uintptr_t begin, const SharedFile::Note& note);

  Settings settings_;
  Counters counters_;
  std::unique_ptr<Timeline> timeline_;
  MemoryCurve memory_curve_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<DeviceMemory>> devices_;
  Contents contents_;
  std::map<std::uint64_t, SharedFile::Note> adopted_;  // by handle: what it held when it was offered
  std::map<std::uintptr_t, PinnedRange> pinned_;
  std::size_t pinned_bytes_ = 0;  // the sum of their sizes
  std::size_t peak_pinned_bytes_ = 0;
  // Registered host memory: marked kStashed where it stands for device memory that was not computed.
  static constexpr Content kStashed = Content::kComputed;
  Contents stashed_;
  std::string first_uncomputed_read_;
};

// The calling thread's current device.
EBBTIDE_DRYRUN_API int& current_device();

// Prints that `function` has no stand-in, once per name.
EBBTIDE_DRYRUN_API void report_unimplemented(const char* function);

}  // namespace ebbtide::dryrun
