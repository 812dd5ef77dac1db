#include "hooks/torch_cuda_shared_handle.h"

#include <sys/types.h>

#include <cstring>

namespace ebbtide {
namespace {

// Two bytes, version and kind, and then as upstream's struct lies in memory.
constexpr std::size_t kProcessAt = 2;
constexpr std::size_t kPageAt = kProcessAt + 8;
constexpr std::size_t kPageCountAt = kPageAt + sizeof(std::size_t);
constexpr std::size_t kKindOfDescriptorsAt = kPageCountAt + sizeof(std::size_t);  // of version 3

// Where the descriptors begin; none of a version that is not known.
std::optional<std::size_t> header_size_of(const std::string& handle) {
  if (handle.empty()) return {};
  if (handle[0] == 2) return kKindOfDescriptorsAt;
  if (handle[0] == 3) return kKindOfDescriptorsAt + 8;
  return {};
}

template <typename Value>
Value read_at(const std::string& handle, std::size_t offset) {
  Value value{};
  std::memcpy(&value, handle.data() + offset, sizeof value);
  return value;
}

bool is_of(const std::string& handle, std::size_t page, std::size_t page_count) {
  const auto header = header_size_of(handle);
  return header && handle.size() == *header + page_count * sizeof(int) && read_at<std::size_t>(handle, kPageAt) == page &&
         read_at<std::size_t>(handle, kPageCountAt) == page_count;
}

// Padding does not count: upstream does not set it.
bool is_alike(const std::string& handle, const std::string& other) {
  const bool is_alike = handle.compare(0, kProcessAt, other, 0, kProcessAt) == 0 &&
                        read_at<pid_t>(handle, kProcessAt) == read_at<pid_t>(other, kProcessAt);
  if (!is_alike || handle[0] == 2) return is_alike;
  return read_at<int>(handle, kKindOfDescriptorsAt) == read_at<int>(other, kKindOfDescriptorsAt);
}

}  // namespace

std::optional<std::string> join_shared_handles(const std::vector<std::string>& handles, std::size_t page,
                                               const std::vector<std::size_t>& page_counts) {
  if (handles.empty() || handles.size() != page_counts.size()) return {};
  std::string joined;
  std::size_t all = 0;
  for (std::size_t i = 0; i < handles.size(); ++i) {
    if (!is_of(handles[i], page, page_counts[i]) || !is_alike(handles[i], handles[0])) return {};
    joined.append(handles[i], i == 0 ? 0 : *header_size_of(handles[i]));
    all += page_counts[i];
  }
  std::memcpy(joined.data() + kPageCountAt, &all, sizeof all);
  return joined;
}

}  // namespace ebbtide
