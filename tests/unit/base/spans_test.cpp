#include "allocator/base/spans.h"

#include <gtest/gtest.h>

namespace ebbtide {
namespace {

constexpr Span span(std::int64_t begin, std::int64_t end) { return {Offset{begin}, Offset{end}}; }

TEST(Spans, AreMergedWhereTheyTouchOrOverlap) {
  const std::vector<Span> spans = merged({span(8, 10), span(0, 2), span(2, 3), span(1, 2), span(9, 12)});
  EXPECT_EQ(spans, (std::vector<Span>{span(0, 3), span(8, 12)}));
  EXPECT_TRUE(merged({}).empty());
}

TEST(Spans, MeetWhatHasAByteOfThem) {
  const std::vector<Span> spans{span(2, 4), span(8, 9)};
  EXPECT_FALSE(any_meets(spans, Offset{0}, Bytes{2}));
  EXPECT_TRUE(any_meets(spans, Offset{0}, Bytes{3}));
  EXPECT_FALSE(any_meets(spans, Offset{4}, Bytes{4}));
  EXPECT_TRUE(any_meets(spans, Offset{3}, Bytes{1}));
  EXPECT_TRUE(any_meets(spans, Offset{0}, Bytes{100}));
  EXPECT_FALSE(any_meets(spans, Offset{9}, Bytes{100}));
  EXPECT_FALSE(any_meets({}, Offset{0}, Bytes{1}));
}

}  // namespace
}  // namespace ebbtide
