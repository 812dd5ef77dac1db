// Where the elements of a tensor lie in its storage.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/flat_hash_map.h>

#include <cstddef>
#include <cstdint>

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

// Empty, without gaps, in `tensor`'s order of dimensions; dimension `dim` is of another size.
at::Tensor dense_like(const at::Tensor& tensor, std::int64_t dim, std::int64_t size);

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
