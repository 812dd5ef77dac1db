#include "hooks/torch_cuda_shared_handle.h"

#include <sys/types.h>

#include <cstddef>
#include <cstring>

namespace ebbtide {
namespace {

constexpr std::size_t kKindBytes = 2;

// As upstream writes it.
struct Header {
  pid_t process = 0;
  std::size_t page = 0;
  std::size_t page_count = 0;
};

std::optional<Header> header_of(const std::string& handle) {
  Header header;
  if (handle.size() < kKindBytes + sizeof header) return {};
  std::memcpy(&header, handle.data() + kKindBytes, sizeof header);
  const std::size_t descriptors = handle.size() - kKindBytes - sizeof header;
  if (descriptors != header.page_count * sizeof(int)) return {};
  return header;
}

}  // namespace

std::optional<std::string> join_shared_handles(const std::vector<std::string>& handles, std::size_t page,
                                               const std::vector<std::size_t>& page_counts) {
  if (handles.empty() || handles.size() != page_counts.size()) return {};
  std::string kind;
  std::string descriptors;
  Header all;
  for (std::size_t i = 0; i < handles.size(); ++i) {
    const std::optional<Header> header = header_of(handles[i]);
    if (!header || header->page != page || header->page_count != page_counts[i]) return {};
    if (i == 0) {
      kind = handles[i].substr(0, kKindBytes);
      all.process = header->process;
      all.page = page;
    }
    if (handles[i].compare(0, kKindBytes, kind) != 0 || header->process != all.process) return {};
    all.page_count += header->page_count;
    descriptors.append(handles[i], kKindBytes + sizeof(Header));
  }
  std::string joined = kind;
  char bytes[sizeof(Header)];
  std::memset(bytes, 0, sizeof bytes);
  std::memcpy(bytes + offsetof(Header, process), &all.process, sizeof all.process);
  std::memcpy(bytes + offsetof(Header, page), &all.page, sizeof all.page);
  std::memcpy(bytes + offsetof(Header, page_count), &all.page_count, sizeof all.page_count);
  joined.append(bytes, sizeof bytes);
  return joined + descriptors;
}

}  // namespace ebbtide
