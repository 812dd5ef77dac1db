#include "hooks/torch_cuda_shared_handle.h"

#include <gtest/gtest.h>
#include <sys/types.h>

#include <string>
#include <vector>

namespace ebbtide {
namespace {

constexpr std::size_t kPage = 20 << 20;

template <typename Value>
void append(std::string& bytes, const Value& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// As torch writes them: version, kind, process (padded), size of the pages, their count, descriptors.
std::string handle(std::vector<int> descriptors, pid_t process = 42, std::size_t page = kPage, char kind = 'e') {
  std::string bytes{'\x02', kind};
  append(bytes, process);
  append(bytes, 0);
  append(bytes, page);
  append(bytes, descriptors.size());
  for (const int descriptor : descriptors) append(bytes, descriptor);
  return bytes;
}

TEST(SharedHandles, StretchesThatFollowOneAnotherAreOne) {
  EXPECT_EQ(join_shared_handles({handle({7, 8, 9}), handle({10}), handle({11, 12})}, kPage, {3, 1, 2}),
            handle({7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(join_shared_handles({handle({7})}, kPage, {1}), handle({7}));
}

TEST(SharedHandles, WhatIsNotOfThatFormIsNotJoined) {
  const std::string good = handle({7, 8, 9});
  EXPECT_FALSE(join_shared_handles({}, kPage, {}));
  EXPECT_FALSE(join_shared_handles({good, handle({10})}, kPage, {3}));
  EXPECT_FALSE(join_shared_handles({good, handle({10, 11})}, kPage, {3, 1}));  // more than the stretch has
  EXPECT_FALSE(join_shared_handles({good, handle({10}, 43)}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({good, handle({10}, 42, 2 << 20)}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({good, handle({10}, 42, kPage, 'c')}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({good + "x", handle({10})}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({good.substr(0, 20), handle({10})}, kPage, {3, 1}));
}

}  // namespace
}  // namespace ebbtide
