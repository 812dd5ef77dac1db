#include "dryrun/core/shared_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

#include "dryrun/core/pointer.h"

namespace ebbtide::dryrun {

namespace {

constexpr std::uint64_t kMagic = 0x65626264727569ULL;

// The file's last bytes; the note's stretches stand before it.
struct Trailer {
  std::uint64_t size, stretches, magic;
};

// Where files are mapped: they are cleared in another way.
struct Mapped {
  std::mutex mutex;
  std::map<std::uintptr_t, std::size_t> ranges;
  std::atomic<std::size_t> count{0};
};

Mapped& mapped() {
  static Mapped* instance = new Mapped();  // never destroyed: memory is cleared until the process is gone
  return *instance;
}

bool write_all(int descriptor, const void* bytes, std::size_t size, std::uint64_t offset) {
  const auto* from = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t written = ::pwrite(descriptor, from, size, static_cast<off_t>(offset));
    if (written <= 0) return false;
    from += written;
    offset += static_cast<std::uint64_t>(written);
    size -= static_cast<std::size_t>(written);
  }
  return true;
}

bool read_all(int descriptor, void* bytes, std::size_t size, std::uint64_t offset) {
  return ::pread(descriptor, bytes, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
}

}  // namespace

SharedFile::~SharedFile() {
  if (is_open()) ::close(descriptor_);
}

SharedFile::SharedFile(SharedFile&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

SharedFile& SharedFile::operator=(SharedFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

SharedFile SharedFile::create(std::size_t size) {
  SharedFile file(::memfd_create("ebbtide dryrun", MFD_CLOEXEC));
  const bool is_made = file.is_open() && ::ftruncate(file.descriptor_, static_cast<off_t>(size)) == 0 && file.write(Note{size, {}});
  return is_made ? std::move(file) : SharedFile();
}

bool SharedFile::write(std::uint64_t offset, const void* bytes, std::size_t size) const {
  return write_all(descriptor_, bytes, size, offset);
}

bool SharedFile::write(const Note& note) const {
  const std::size_t bytes = note.stretches.size() * sizeof(Stretch);
  const Trailer trailer{note.size, note.stretches.size(), kMagic};
  return ::ftruncate(descriptor_, static_cast<off_t>(note.size + bytes + sizeof trailer)) == 0 &&
         write(note.size, note.stretches.data(), bytes) && write(note.size + bytes, &trailer, sizeof trailer);
}

std::optional<SharedFile::Note> SharedFile::read_note() const {
  struct stat facts {};
  if (::fstat(descriptor_, &facts) != 0) return {};
  const auto length = static_cast<std::uint64_t>(facts.st_size);
  Trailer trailer{};
  if (length < sizeof trailer || !read_all(descriptor_, &trailer, sizeof trailer, length - sizeof trailer)) return {};
  const bool is_ours = trailer.magic == kMagic && trailer.stretches <= length / sizeof(Stretch) &&
                       trailer.size + trailer.stretches * sizeof(Stretch) + sizeof trailer == length;
  if (!is_ours) return {};
  Note note{trailer.size, std::vector<Stretch>(trailer.stretches)};
  if (!read_all(descriptor_, note.stretches.data(), note.stretches.size() * sizeof(Stretch), note.size)) return {};
  return note;
}

bool SharedFile::map(std::uintptr_t address, std::size_t size) const {
  void* at = ::mmap(to_pointer(address), size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, descriptor_, 0);
  if (at == MAP_FAILED) return false;
  Mapped& all = mapped();
  const std::lock_guard lock(all.mutex);
  all.ranges[address] = size;
  all.count.store(all.ranges.size(), std::memory_order_release);
  return true;
}

void unmap_shared(std::uintptr_t address, std::size_t size) {
  ::mmap(to_pointer(address), size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  ::madvise(to_pointer(address), size, MADV_NOHUGEPAGE);
  Mapped& all = mapped();
  const std::lock_guard lock(all.mutex);
  all.ranges.erase(address);
  all.count.store(all.ranges.size(), std::memory_order_release);
}

std::vector<std::pair<std::uintptr_t, std::size_t>> shared_parts(std::uintptr_t address, std::size_t size) {
  std::vector<std::pair<std::uintptr_t, std::size_t>> parts;
  Mapped& all = mapped();
  if (all.count.load(std::memory_order_acquire) == 0) return parts;
  const std::lock_guard lock(all.mutex);
  for (const auto& [begin, length] : all.ranges) {
    const std::uintptr_t from = std::max(address, begin);
    const std::uintptr_t to = std::min(address + size, begin + length);
    if (from < to) parts.emplace_back(from, to - from);
  }
  return parts;
}

}  // namespace ebbtide::dryrun
