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

// As torch writes them: version, kind, process (padded), size of the pages, their count, of what kind the descriptors are
// (padded; from version 3 on), descriptors. It does not set what it pads with.
struct Form {
  char version = 2;
  char kind = 'e';
  pid_t process = 42;
  std::size_t page = kPage;
  int kind_of_descriptors = 1;
  int padding = 0;
};

std::string handle(std::vector<int> descriptors, Form form = {}) {
  std::string bytes{form.version, form.kind};
  append(bytes, form.process);
  append(bytes, form.padding);
  append(bytes, form.page);
  append(bytes, descriptors.size());
  if (form.version == 3) append(bytes, form.kind_of_descriptors);
  if (form.version == 3) append(bytes, form.padding);
  for (const int descriptor : descriptors) append(bytes, descriptor);
  return bytes;
}

TEST(SharedHandles, StretchesThatFollowOneAnotherAreOne) {
  EXPECT_EQ(join_shared_handles({handle({7, 8, 9}), handle({10}), handle({11, 12})}, kPage, {3, 1, 2}),
            handle({7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(join_shared_handles({handle({7})}, kPage, {1}), handle({7}));
  const Form newer{.version = 3}, padded{.version = 3, .padding = 0x7ffc};
  EXPECT_EQ(join_shared_handles({handle({7}, newer), handle({8, 9}, padded)}, kPage, {1, 2}), handle({7, 8, 9}, newer));
}

TEST(SharedHandles, WhatIsNotOfThatFormIsNotJoined) {
  const std::string good = handle({7, 8, 9});
  EXPECT_FALSE(join_shared_handles({}, kPage, {}));
  EXPECT_FALSE(join_shared_handles({good, handle({10})}, kPage, {3}));
  EXPECT_FALSE(join_shared_handles({good, handle({10, 11})}, kPage, {3, 1}));  // more than the stretch has
  EXPECT_FALSE(join_shared_handles({good, handle({10}, {.process = 43})}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({good, handle({10}, {.page = 2 << 20})}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({good, handle({10}, {.kind = 'c'})}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({handle({7}, {.version = 4}), handle({8}, {.version = 4})}, kPage, {1, 1}));
  EXPECT_FALSE(join_shared_handles({good, handle({10}, {.version = 3})}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({handle({7}, {.version = 3}), handle({8}, {.version = 3, .kind_of_descriptors = 2})}, kPage, {1, 1}));
  EXPECT_FALSE(join_shared_handles({good + "x", handle({10})}, kPage, {3, 1}));
  EXPECT_FALSE(join_shared_handles({good.substr(0, 20), handle({10})}, kPage, {3, 1}));
}

}  // namespace
}  // namespace ebbtide
