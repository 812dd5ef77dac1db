// Tensors on simulated devices: what their memory holds, and the same memory as a CPU tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include "dryrun/core/contents.h"

namespace ebbtide::dryrun {

// Largest floating-point tensor, in elements, that is ever computed.
inline constexpr std::int64_t kMaxFloatElements = 65536;

// An ordinary dense CUDA tensor with memory of its own: no subclass, no fake, no sparse layout.
bool is_plain_device_tensor(const at::Tensor& tensor);
// Integer or boolean.
bool is_exact(const at::Tensor& tensor);
// Small enough to be computed. Requires: is_plain_device_tensor(tensor).
bool is_computable(const at::Tensor& tensor);

// What the memory under the tensor holds, at worst.
Content content_of(const at::Tensor& tensor);
void mark(const at::Tensor& tensor, Content content);

// A CPU tensor over the same memory. `materialise` first fills what was not computed with
// typical values, or with zeros if it is no floating-point tensor.
at::Tensor host_alias(const at::Tensor& tensor, bool materialise);

// Fills with zeros at no cost. Requires: tensor.is_non_overlapping_and_dense().
void fill_zero(const at::Tensor& tensor);

// "float32 [8192, 4096]".
void describe_tensor(const void* tensor_impl, char* text, std::size_t capacity);

}  // namespace ebbtide::dryrun
