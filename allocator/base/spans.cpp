#include "allocator/base/spans.h"

#include <algorithm>

namespace ebbtide {

std::vector<Span> merged(std::vector<Span> spans) {
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  std::vector<Span> result;
  for (const Span& span : spans) {
    if (!result.empty() && span.begin <= result.back().end) {
      result.back().end = std::max(result.back().end, span.end);
    } else {
      result.push_back(span);
    }
  }
  return result;
}

bool any_meets(const std::vector<Span>& spans, Offset offset, Bytes size) {
  const auto after = std::partition_point(spans.begin(), spans.end(), [offset](const Span& span) { return span.end <= offset; });
  return after != spans.end() && after->begin < offset + size;
}

}  // namespace ebbtide
