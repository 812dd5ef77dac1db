#include "dryrun/core/contents.h"

#include <algorithm>
#include <iterator>

namespace ebbtide::dryrun {

Contents::Segments::const_iterator Contents::first_after(std::uintptr_t address) const {
  auto it = segments_.upper_bound(address);
  if (it != segments_.begin() && std::prev(it)->second.end > address) --it;
  return it;
}

void Contents::erase(std::uintptr_t begin, std::uintptr_t end) {
  auto it = segments_.erase(first_after(begin), first_after(begin));  // a mutable iterator
  while (it != segments_.end() && it->first < end) {
    const std::uintptr_t old_begin = it->first;
    const Segment old = it->second;
    it = segments_.erase(it);
    if (old_begin < begin) segments_.emplace(old_begin, Segment{begin, old.content});
    if (old.end > end) it = segments_.emplace(end, Segment{old.end, old.content}).first;
  }
}

void Contents::mark(std::uintptr_t address, std::size_t size, Content content) {
  if (size == 0) return;
  std::uintptr_t begin = address;
  std::uintptr_t end = address + size;
  erase(begin, end);
  if (content == Content::kNotComputed) return;
  auto next = segments_.lower_bound(begin);
  if (next != segments_.end() && next->first == end && next->second.content == content) {
    end = next->second.end;
    next = segments_.erase(next);
  }
  if (next != segments_.begin()) {
    const auto previous = std::prev(next);
    if (previous->second.end == begin && previous->second.content == content) {
      begin = previous->first;
      segments_.erase(previous);
    }
  }
  segments_.emplace(begin, Segment{end, content});
}

Content Contents::least(std::uintptr_t address, std::size_t size) const {
  Content result = Content::kComputed;
  for_each(address, size, [&](std::uintptr_t, std::size_t, Content content) {
    result = std::min(result, content);
  });
  return result;
}

bool Contents::is_valid() const {
  std::uintptr_t last_end = 0;
  Content last_content = Content::kNotComputed;
  for (const auto& [begin, segment] : segments_) {
    if (begin < last_end || segment.end <= begin) return false;
    if (segment.content == Content::kNotComputed) return false;
    if (begin == last_end && segment.content == last_content) return false;
    last_end = segment.end;
    last_content = segment.content;
  }
  return true;
}

}  // namespace ebbtide::dryrun
