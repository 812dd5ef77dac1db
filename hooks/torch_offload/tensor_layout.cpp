#include "hooks/torch_offload/tensor_layout.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/Allocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/hash.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <vector>

namespace ebbtide::offload {

StorageId storage_of(const at::Tensor& tensor) { return tensor.storage().unsafeGetStorageImpl(); }

std::int64_t span_of(const at::Tensor& tensor) {
  std::int64_t last = 0;
  for (std::int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  return tensor.numel() == 0 ? 0 : last + 1;
}

std::size_t BytesHash::operator()(const BytesKey& key) const noexcept {
  // Storages differ most; their addresses are multiples of their alignment.
  const auto address = reinterpret_cast<std::uintptr_t>(key.storage) / alignof(std::max_align_t);
  return c10::hash_combine(c10::hash_combine(address, static_cast<std::size_t>(key.begin)),
                           static_cast<std::size_t>(key.count) + key.version);
}

at::Tensor dense_like(const at::Tensor& tensor, std::int64_t dim, std::int64_t size) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(tensor.dim())), back(order.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return tensor.stride(a) > tensor.stride(b);
  });
  std::vector<std::int64_t> sizes;
  for (std::size_t i = 0; i < order.size(); ++i) {
    sizes.push_back(order[i] == dim ? size : tensor.size(order[i]));
    back[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
  }
  return at::empty(sizes, tensor.options()).permute(back);
}

at::Tensor empty_bytes(std::int64_t count, at::Device device) {
  const c10::OptionalDeviceGuard guard(device.is_cpu() ? std::nullopt : std::optional(device));
  const c10::DispatchKeySet keys(device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA);
  return at::detail::empty_generic({count}, c10::GetAllocator(device.type()), keys, at::kByte, std::nullopt);
}

at::Tensor alias_of(const at::Tensor& tensor) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  return at::Tensor(impl.shallow_copy_and_detach(impl.version_counter(),
                                                 /*allow_tensor_metadata_change=*/false));
}

at::Tensor part_of(const at::Tensor& tensor, at::IntArrayRef size, at::IntArrayRef stride,
                   std::int64_t begin) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  at::Tensor part(impl.shallow_copy_and_detach(impl.version_counter(),
                                               /*allow_tensor_metadata_change=*/true));
  part.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, impl.storage_offset() + begin);
  return part;
}

at::Tensor typed_part(const at::Tensor& bytes, std::int64_t start, at::ScalarType type,
                      at::IntArrayRef size, at::IntArrayRef stride) {
  const caffe2::TypeMeta meta = c10::scalarTypeToTypeMeta(type);
  auto part = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(bytes.storage()),
                                                       bytes.key_set(), meta);
  const auto element = static_cast<std::int64_t>(meta.itemsize());
  part.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, start / element);
  return part;
}

}  // namespace ebbtide::offload
