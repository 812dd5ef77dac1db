// Device memory that other processes open: a file in memory, mapped where the device has it.
//
// Behind the bytes stands a note on what of them was computed, as it was when the file was offered last: what either process
// computes later is seen as bytes by the other, but not noted there.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "dryrun/core/contents.h"
#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

// Owns a file descriptor; may have none.
class EBBTIDE_DRYRUN_API SharedFile {
 public:
  SharedFile() = default;
  explicit SharedFile(int descriptor) : descriptor_(descriptor) {}
  ~SharedFile();
  SharedFile(SharedFile&& other) noexcept;
  SharedFile& operator=(SharedFile&& other) noexcept;

  // A new one of zeros; none when the host refuses.
  static SharedFile create(std::size_t size);

  bool is_open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }

  struct Stretch {
    std::uint64_t offset, size;
    Content content;
  };
  struct Note {
    std::uint64_t size = 0;  // of the memory
    std::vector<Stretch> stretches;  // that were computed
  };
  bool write(std::uint64_t offset, const void* bytes, std::size_t size) const;
  bool write(const Note& note) const;
  // None: it is no such file.
  std::optional<Note> read_note() const;

  // Maps the first `size` bytes over what is at `address`.
  bool map(std::uintptr_t address, std::size_t size) const;

 private:
  int descriptor_ = -1;
};

// Ordinary memory of zeros again where a file is mapped.
void unmap_shared(std::uintptr_t address, std::size_t size);
// The parts of a range that are mapped from files. Thread-safe.
std::vector<std::pair<std::uintptr_t, std::size_t>> shared_parts(std::uintptr_t address, std::size_t size);

}  // namespace ebbtide::dryrun
