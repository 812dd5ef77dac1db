#include "dryrun/core/shared_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "dryrun/core/device_memory.h"
#include "dryrun/core/pointer.h"

namespace ebbtide::dryrun {
namespace {

constexpr Bytes kSize{4 << 20};
constexpr auto kBytes = static_cast<std::size_t>(kSize.value);

char* at(std::uintptr_t address) { return static_cast<char*>(to_pointer(address)); }

SharedFile make(std::uintptr_t, Bytes size) { return SharedFile::create(static_cast<std::size_t>(size.value)); }

// The same file by another descriptor, as another process has it.
SharedFile again(const SharedFile& file) { return SharedFile(::dup(file.descriptor())); }

TEST(SharedFile, ItsNoteSaysWhatWasComputed) {
  const SharedFile file = SharedFile::create(kBytes);
  EXPECT_EQ(file.read_note()->size, kBytes);
  EXPECT_TRUE(file.read_note()->stretches.empty());
  ASSERT_TRUE(file.write(SharedFile::Note{kBytes, {{8, 16, Content::kComputed}, {64, 8, Content::kDerived}}}));
  ASSERT_TRUE(file.write(SharedFile::Note{kBytes, {{8, 16, Content::kDerived}}}));  // the newest
  const auto note = file.read_note();
  ASSERT_EQ(note->stretches.size(), 1U);
  EXPECT_EQ(note->stretches[0].offset, 8U);
  EXPECT_EQ(note->stretches[0].content, Content::kDerived);
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  const SharedFile read_end(pipe_ends[0]), write_end(pipe_ends[1]);
  EXPECT_FALSE(read_end.read_note());
}

TEST(SharedDeviceMemory, AnAllocationIsTheSameInBothPlaces) {
  DeviceMemory here{{64 << 20}}, there{{64 << 20}};
  const std::uintptr_t ours = *here.allocate(kSize);
  const SharedFile* file = here.share_allocation(ours + 100, make);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(here.share_allocation(ours, make), file);  // once for all
  const std::uintptr_t theirs = *there.open(again(*file), kSize);
  EXPECT_EQ(there.used(), Bytes{});  // it is the other's memory
  at(ours)[5] = 1;
  at(theirs)[6] = 2;
  EXPECT_EQ(at(theirs)[5] + at(ours)[6], 3);
  clear_host_pages(ours, kBytes);
  EXPECT_EQ(at(theirs)[5], 0);
  // What is freed is gone here and lives on there until it is closed.
  at(theirs)[7] = 3;
  EXPECT_EQ(here.deallocate(ours), kSize);
  EXPECT_EQ(at(ours)[7], 0);
  EXPECT_EQ(at(theirs)[7], 3);
  EXPECT_EQ(there.close(theirs), kSize);
  EXPECT_FALSE(there.close(theirs));
  EXPECT_TRUE(here.is_valid() && there.is_valid());
  EXPECT_EQ(here.share_allocation(ours, make), nullptr);
}

TEST(SharedDeviceMemory, AHandleIsMappedWhereverItIsAdopted) {
  DeviceMemory here{{64 << 20}}, there{{64 << 20}};
  const std::uintptr_t ours = *here.reserve(kSize, kGranularity);
  const std::uint64_t handle = *here.create(kSize);
  ASSERT_EQ(here.map(ours, kSize, handle), MapStatus::kOk);
  const SharedFile* file = here.share_physical(handle, make);
  ASSERT_NE(file, nullptr);
  const std::uint64_t adopted = there.adopt(again(*file), kSize);
  const std::uintptr_t theirs = *there.reserve(kSize, kGranularity);
  ASSERT_EQ(there.map(theirs, kSize, adopted), MapStatus::kOk);
  at(ours)[9] = 4;
  EXPECT_EQ(at(theirs)[9], 4);
  EXPECT_EQ(there.used(), Bytes{});
  ASSERT_EQ(there.unmap(theirs, kSize), MapStatus::kOk);
  EXPECT_EQ(at(theirs)[9], 0);
  EXPECT_EQ(at(ours)[9], 4);
  EXPECT_TRUE(there.release(adopted));
  EXPECT_TRUE(there.is_valid());
  ASSERT_EQ(here.unmap(ours, kSize), MapStatus::kOk);
  EXPECT_TRUE(here.release(handle));
  EXPECT_EQ(here.used(), Bytes{});
}

}  // namespace
}  // namespace ebbtide::dryrun
