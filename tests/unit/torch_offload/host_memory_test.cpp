// How much of its host memory a machine is said to have.
#include "hooks/torch_offload/host_memory.h"

#include <gtest/gtest.h>

#include <sstream>

namespace ebbtide::offload {
namespace {

TEST(HostMemoryTest, WhatCachesOfFilesHoldIsAvailable) {
  std::istringstream meminfo(
      "MemTotal:       99999 kB\nMemFree:          100 kB\nMemAvailable:   32768 kB\n");
  EXPECT_EQ(available_memory(meminfo), std::int64_t{32768} << 10);
}

TEST(HostMemoryTest, ASystemThatDoesNotSayWhatIsAvailableIsNotGuessedAt) {
  std::istringstream meminfo("MemTotal:       99999 kB\nMemFree:          100 kB\n");
  EXPECT_EQ(available_memory(meminfo), std::nullopt);
}

TEST(HostMemoryTest, AProgramThatNamesNoBudgetGetsAPartOfTheHostsMemory) {
  EXPECT_GT(default_host_budget(), 0);
  EXPECT_LE(default_host_budget(), host_memory());
}

}  // namespace
}  // namespace ebbtide::offload
