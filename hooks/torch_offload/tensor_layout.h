// Where the elements of a tensor lie in its storage.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>
#include <c10/util/flat_hash_map.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace ebbtide::offload {

using StorageId = const void*;  // tells storages apart as long as they are alive

inline std::int64_t bytes_of(const at::Tensor& tensor) {
  return static_cast<std::int64_t>(tensor.nbytes());
}
StorageId storage_of(const at::Tensor& tensor);
// Elements of its storage from the first to the last that `tensor` covers.
std::int64_t span_of(const at::Tensor& tensor);
// Elements of a storage, of a type, as one version of them: tells bytes apart as long as the storage
// is alive.
struct BytesKey {
  StorageId storage = nullptr;
  std::int64_t begin = 0, count = 0;
  at::ScalarType type = at::kByte;
  std::uint32_t version = 0;
  bool operator==(const BytesKey&) const = default;
};

struct BytesHash {
  std::size_t operator()(const BytesKey& key) const noexcept;
};

// Without memory for each entry.
template <typename Value>
using BytesMap = ska::flat_hash_map<BytesKey, Value, BytesHash>;

// Numbers distinct bytes from 0 on. A few are compared one by one: they need no memory of their own.
class BytesNumbers {
 public:
  static constexpr std::size_t kFew = 8;

  explicit BytesNumbers(std::size_t most) : is_few_(most <= kFew) {
    if (!is_few_) numbers_.reserve(most);
  }
  // The number of `key`, and whether it is new.
  std::pair<std::size_t, bool> of(const BytesKey& key) {
    if (!is_few_) {
      const auto [at, is_new] = numbers_.emplace(key, numbers_.size());
      return {at->second, is_new};
    }
    const auto found = std::find(few_.begin(), few_.end(), key);
    const auto number = static_cast<std::size_t>(found - few_.begin());
    const bool is_new = found == few_.end();
    if (is_new) few_.push_back(key);
    return {number, is_new};
  }

 private:
  bool is_few_;
  c10::SmallVector<BytesKey, kFew> few_;
  BytesMap<std::size_t> numbers_;
};

// Empty, without gaps, in `tensor`'s order of dimensions; dimension `dim` is of another size.
at::Tensor dense_like(const at::Tensor& tensor, std::int64_t dim, std::int64_t size);

// Bytes on a device, for work on its current stream: empty(), but for its detour through torch's dispatcher.
at::Tensor empty_bytes(std::int64_t count, at::Device device);

// The same bytes and version counter, without a graph: detach(), but for its detour through torch's
// dispatcher, which would be most of what a saved tensor costs the host.
at::Tensor alias_of(const at::Tensor& tensor);

// The same bytes and version counter in another shape, whose first element is `begin` elements behind
// that of `tensor`; likewise.
at::Tensor part_of(const at::Tensor& tensor, at::IntArrayRef size, at::IntArrayRef stride,
                   std::int64_t begin);

// A part of `bytes` as a tensor of its own, with a version of its own, from byte `start` on;
// likewise.
at::Tensor typed_part(const at::Tensor& bytes, std::int64_t start, at::ScalarType type,
                      at::IntArrayRef size, at::IntArrayRef stride);

}  // namespace ebbtide::offload
