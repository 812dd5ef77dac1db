#include "profiler/status_page.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/unit/profiler/trace_samples.h"

namespace ebbtide {
namespace {

using testing_support::TemporaryPath;

// The page as another process sees it.
class Reader {
 public:
  explicit Reader(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY);
    memory_ = ::mmap(nullptr, kSize, PROT_READ, MAP_SHARED, file, 0);
    ::close(file);
  }
  ~Reader() { ::munmap(memory_, kSize); }

  std::uint64_t word(std::size_t index) const {
    return std::atomic_ref(static_cast<std::uint64_t*>(memory_)[index]).load(std::memory_order_acquire);
  }
  Status1 status() const {
    Status1 status;
    std::uint64_t before = 0;
    do {
      before = word(1);
      std::memcpy(&status, static_cast<const char*>(memory_) + 16, sizeof status);
      std::atomic_thread_fence(std::memory_order_acquire);
    } while (before % 2 != 0 || word(1) != before);
    return status;
  }

 private:
  static constexpr std::size_t kSize = 16 + sizeof(Status1);
  void* memory_;
};

TEST(StatusPage, ShowsWhatWasPublishedLast) {
  const TemporaryPath path;
  auto page = StatusPage::create(path.string());
  ASSERT_TRUE(page.ok());
  const Reader reader(path.string());
  EXPECT_EQ(reader.word(0), kStatusMagic);
  Status1 status;
  for (std::int64_t step = 1; step < 4; ++step) {
    status.steps = step;
    status.device[15].rounds = 7 * step;
    page.value()->publish(status);
    EXPECT_EQ(reader.status().steps, step);
    EXPECT_EQ(reader.status().device[15].rounds, 7 * step);
  }
}

TEST(StatusPage, IsForItsUserAndGoesWithItsProcess) {
  const TemporaryPath path;
  {
    const auto page = StatusPage::create(path.string());
    ASSERT_TRUE(page.ok());
    struct stat facts {};
    ASSERT_EQ(::stat(path.string().c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0600U);
    // One that a killed process left is replaced.
    EXPECT_TRUE(StatusPage::create(path.string()).ok());
  }
  EXPECT_NE(::access(path.string().c_str(), F_OK), 0);
}

TEST(StatusPage, ThatCannotBeMadeIsAnError) {
  EXPECT_FALSE(StatusPage::create("/nonexistent/page").ok());
}

TEST(StatusPage, IsNeverSeenHalfWritten) {
  const TemporaryPath path;
  auto page = StatusPage::create(path.string());
  ASSERT_TRUE(page.ok());
  const Reader reader(path.string());
  std::atomic<bool> done{false};
  std::thread writer([&] {
    Status1 status;
    for (std::int64_t i = 1; i < 20000; ++i) {
      status.steps = status.device[15].rounds = status.device[0].live = i;
      page.value()->publish(status);
    }
    done = true;
  });
  std::int64_t last = 0;
  while (!done) {
    const Status1 seen = reader.status();
    EXPECT_EQ(seen.steps, seen.device[15].rounds);
    EXPECT_EQ(seen.steps, seen.device[0].live);
    EXPECT_GE(seen.steps, last);
    last = seen.steps;
  }
  writer.join();
}

}  // namespace
}  // namespace ebbtide
