#include "profiler/owner_names.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/unit/profiler/kept_events.h"

namespace ebbtide {
namespace {

// As a reader of the trace puts them together.
std::map<std::uint32_t, std::string> texts_of(const KeptEvents& kept) {
  std::map<std::uint32_t, std::string> texts;
  for (const EventRecord& event : kept.events) {
    EXPECT_EQ(event.action, Action::kName);
    EXPECT_EQ(event.device, kNoDevice);
    char piece[24];
    std::memcpy(piece, &event.address, 8);
    std::memcpy(piece + 8, &event.bytes, 8);
    std::memcpy(piece + 16, &event.stream, 8);
    texts[event.thread].append(piece, event.detail);
  }
  return texts;
}

TEST(OwnerNames, TextsOfAnyLengthComeBackByTheirNumbers) {
  OwnerNames names;
  KeptEvents kept;
  std::map<std::uint32_t, std::string> given;
  for (const std::size_t length : {0UL, 1UL, 23UL, 24UL, 25UL, 48UL, 239UL, 240UL}) {
    const std::string text = std::string(length, 'a');
    given[names.add(kept, text)] = text;
  }
  EXPECT_EQ(texts_of(kept), given);
  EXPECT_EQ(given.begin()->first, 1U);
}

TEST(OwnerNames, WhatIsTooLongIsCutOff) {
  OwnerNames names;
  KeptEvents kept;
  EXPECT_EQ(names.add(kept, std::string(1000, 'x')), 1U);
  EXPECT_EQ(texts_of(kept).at(1), std::string(OwnerNames::kMostText, 'x'));
}

}  // namespace
}  // namespace ebbtide
