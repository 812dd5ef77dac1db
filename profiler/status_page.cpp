#include "profiler/status_page.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <new>
#include <utility>

namespace ebbtide {

struct StatusPage::Page {
  std::uint64_t magic = kStatusMagic;
  std::atomic<std::uint64_t> sequence{0};
  Status1 status;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

std::string StatusPage::own_path() {
  return "/dev/shm/ebbtide-" + std::to_string(::getuid()) + "-" + std::to_string(::getpid());
}

Result<std::unique_ptr<StatusPage>> StatusPage::create(const std::string& path) {
  const auto failed = [&] { return Error{ErrorCode::kSystem, path + ": " + std::strerror(errno)}; };
  ::unlink(path.c_str());  // of a process that had this number and was killed
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0) return failed();
  void* memory = MAP_FAILED;
  // posix_fallocate, so that a full /dev/shm is an error here and no signal later.
  if (const int error = ::posix_fallocate(file, 0, sizeof(Page)); error != 0) {
    errno = error;
  } else {
    memory = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  const Error error = failed();
  ::close(file);
  if (memory == MAP_FAILED) {
    ::unlink(path.c_str());
    return error;
  }
  return std::unique_ptr<StatusPage>(new StatusPage(new (memory) Page, path));
}

StatusPage::~StatusPage() {
  ::unlink(path_.c_str());
  ::munmap(page_, sizeof(Page));
}

void StatusPage::publish(const Status1& status) {
  const std::uint64_t before = page_->sequence.load(std::memory_order_relaxed);
  page_->sequence.store(before + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  std::memcpy(&page_->status, &status, sizeof status);
  page_->sequence.store(before + 2, std::memory_order_release);
}

}  // namespace ebbtide
