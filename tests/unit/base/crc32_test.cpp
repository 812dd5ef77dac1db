#include "allocator/base/crc32.h"

#include <gtest/gtest.h>

#include <string>

namespace ebbtide {
namespace {

TEST(Crc32, AgreesWithThePublishedCheckValues) {
  EXPECT_EQ(crc32("", 0), 0U);
  EXPECT_EQ(crc32("123456789", 9), 0xCBF43926U);
  const std::string fox = "The quick brown fox jumps over the lazy dog";
  EXPECT_EQ(crc32(fox.data(), fox.size()), 0x414FA339U);
}

TEST(Crc32, NoticesEverySingleFlippedBit) {
  std::string bytes(67, 'x');
  const std::uint32_t intact = crc32(bytes.data(), bytes.size());
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const char mask = static_cast<char>(1 << (bit % 8));
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ mask);
    EXPECT_NE(crc32(bytes.data(), bytes.size()), intact) << "bit " << bit;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ mask);
  }
}

}  // namespace
}  // namespace ebbtide
