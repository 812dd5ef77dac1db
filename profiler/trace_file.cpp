#include "profiler/trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "profiler/trace_format.h"

namespace ebbtide {
namespace {

Error system_error(const char* what, const std::string& path, int code) {
  return {ErrorCode::kSystem, fmt::format("cannot {} trace {}: {}", what, path, strerror(code))};
}

// Empties a regular file only after it is ours, so that a second process harms nothing.
Status claim(int descriptor, const std::string& path) {
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("trace {} is being written by another process; give each its own file", path)};
  }
  struct stat status {};
  if (fstat(descriptor, &status) != 0) return system_error("examine", path, errno);
  if (S_ISREG(status.st_mode) && ftruncate(descriptor, 0) != 0) {
    return system_error("empty", path, errno);
  }
  return Nothing{};
}

}  // namespace

TraceFile::TraceFile(int descriptor, std::string path)
    : descriptor_(descriptor), path_(std::move(path)) {}

TraceFile::TraceFile(TraceFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      records_(other.records_),
      failed_(other.failed_) {}

TraceFile::~TraceFile() {
  if (descriptor_ < 0) return;
  unlock();
  ::close(descriptor_);
}

Result<TraceFile> TraceFile::create(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return system_error("create", path, errno);
  TraceFile file(descriptor, path);
  if (const Status claimed = claim(descriptor, path); !claimed) return claimed.error();
  const FileHeader header = make_file_header();
  if (const Status written = file.write_all(&header, sizeof header, {}); !written) {
    return written.error();
  }
  return file;
}

Status TraceFile::append(std::span<const EventRecord> records, std::uint64_t lost) {
  const Frame frame = make_block_frame(records, records_, lost);
  if (const Status written = write_all(&frame, sizeof frame, records); !written) return written;
  records_ += records.size();
  return Nothing{};
}

Status TraceFile::finish(std::uint64_t lost) {
  const Frame frame = make_end_frame(records_, lost);
  const Status written = write_all(&frame, sizeof frame, {});
  unlock();
  return written;
}

// Closing alone would not do: children that were forked off hold the same open file.
void TraceFile::unlock() { flock(descriptor_, LOCK_UN); }

Status TraceFile::write_all(const void* header, std::size_t header_size,
                            std::span<const EventRecord> body) {
  if (failed_) return Error{ErrorCode::kSystem, fmt::format("trace {} was given up", path_)};
  // writev takes non-const pointers but only reads through them.
  std::array<iovec, 2> parts{iovec{const_cast<void*>(header), header_size},
                             iovec{const_cast<EventRecord*>(body.data()), body.size_bytes()}};
  std::size_t part = 0;
  while (part < parts.size()) {
    if (parts[part].iov_len == 0) {
      ++part;
      continue;
    }
    const ssize_t count =
        ::writev(descriptor_, &parts[part], static_cast<int>(parts.size() - part));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      failed_ = true;
      return system_error("write", path_, errno);
    }
    auto done = static_cast<std::size_t>(count);
    for (std::size_t i = part; i < parts.size(); ++i) {
      const std::size_t taken = std::min(done, parts[i].iov_len);
      parts[i].iov_base = static_cast<char*>(parts[i].iov_base) + taken;
      parts[i].iov_len -= taken;
      done -= taken;
    }
  }
  return Nothing{};
}

}  // namespace ebbtide
