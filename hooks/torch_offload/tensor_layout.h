// Where the elements of a tensor lie in its storage.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ebbtide::offload {

using StorageId = const void*;  // tells storages apart as long as they are alive

inline std::int64_t bytes_of(const at::Tensor& tensor) {
  return static_cast<std::int64_t>(tensor.nbytes());
}
StorageId storage_of(const at::Tensor& tensor);
// Elements of its storage from the first to the last that `tensor` covers.
std::int64_t span_of(const at::Tensor& tensor);
// Empty, without gaps, in `tensor`'s order of dimensions; dimension `dim` is of another size.
at::Tensor dense_like(const at::Tensor& tensor, std::int64_t dim, std::int64_t size);

}  // namespace ebbtide::offload
