#include "dryrun/torch/device_tensor.h"

#include <ATen/ops/from_blob.h>

#include <cstdio>
#include <sstream>
#include <vector>

#include "dryrun/core/simulator.h"
#include "dryrun/torch/typical_tensor.h"

namespace ebbtide::dryrun {

namespace {

// More separate stretches than this in one tensor are not tracked: it then counts as not computed.
constexpr std::int64_t kMaxStretches = 4096;

struct Extent {
  char* begin;
  std::size_t size;
};

Extent extent_of(const at::Tensor& tensor) {
  std::int64_t last = 0;
  for (std::int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (tensor.size(dim) == 0) return {nullptr, 0};
    last += (tensor.size(dim) - 1) * tensor.stride(dim);
  }
  auto* begin = static_cast<char*>(const_cast<void*>(tensor.unsafeGetTensorImpl()->data()));
  return {begin, static_cast<std::size_t>(last + 1) * tensor.dtype().itemsize()};
}

// Marks each run of neighbouring elements; the gaps between them belong to others. False: too many.
bool mark_stretches(const at::Tensor& tensor, Content content) {
  std::int64_t run = 1;
  std::int64_t inner = tensor.dim();
  while (inner > 0 && (tensor.stride(inner - 1) == run || tensor.size(inner - 1) == 1)) {
    run *= tensor.size(--inner);
  }
  if (tensor.numel() / run > kMaxStretches) return false;
  const auto* base = static_cast<const char*>(tensor.unsafeGetTensorImpl()->data());
  const std::size_t bytes = static_cast<std::size_t>(run) * tensor.dtype().itemsize();
  std::vector<std::int64_t> index(static_cast<std::size_t>(inner), 0);
  for (;;) {
    std::int64_t offset = 0;
    for (std::int64_t dim = 0; dim < inner; ++dim) {
      offset += index[static_cast<std::size_t>(dim)] * tensor.stride(dim);
    }
    const auto skipped = offset * static_cast<std::int64_t>(tensor.element_size());
    Simulator::instance().mark(base + skipped, bytes, content);
    std::int64_t dim = inner - 1;
    while (dim >= 0 && ++index[static_cast<std::size_t>(dim)] == tensor.size(dim)) {
      index[static_cast<std::size_t>(dim--)] = 0;
    }
    if (dim < 0) return true;
  }
}

}  // namespace

bool is_plain_device_tensor(const at::Tensor& tensor) {
  return tensor.defined() && tensor.is_cuda() && tensor.layout() == at::kStrided &&
         tensor.has_storage() && !tensor.key_set().has(c10::DispatchKey::Python) &&
         !tensor.key_set().has(c10::DispatchKey::Functionalize) &&
         !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides() &&
         (tensor.numel() == 0 || tensor.unsafeGetTensorImpl()->data() != nullptr);
}

bool is_exact(const at::Tensor& tensor) {
  return c10::isIntegralType(tensor.scalar_type(), /*includeBool=*/true);
}

bool is_computable(const at::Tensor& tensor) {
  if (!is_exact(tensor)) return tensor.numel() <= kMaxFloatElements && !tensor.is_complex();
  const auto bytes = tensor.numel() * static_cast<std::int64_t>(tensor.element_size());
  return bytes <= Simulator::instance().settings().compute_limit.value;
}

Content content_of(const at::Tensor& tensor) {
  const Extent extent = extent_of(tensor);
  return Simulator::instance().content(extent.begin, extent.size);
}

void mark(const at::Tensor& tensor, Content content) {
  const Extent extent = extent_of(tensor);
  if (extent.size == 0) return;
  Simulator& simulator = Simulator::instance();
  if (tensor.is_non_overlapping_and_dense()) {
    simulator.mark(extent.begin, extent.size, content);
    return;
  }
  if (content == Content::kComputed && simulator.content(extent.begin, extent.size) == content)
    return;
  // Where it is not worth tracking, too much is called not computed: that loses knowledge, but
  // invents none.
  const bool is_worth_it = is_exact(tensor) || content != Content::kNotComputed;
  if (!is_worth_it || !mark_stretches(tensor, content)) {
    simulator.mark(extent.begin, extent.size, Content::kNotComputed);
  }
}

at::Tensor host_alias(const at::Tensor& tensor, bool materialise) {
  const Extent extent = extent_of(tensor);
  const auto options = at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU);
  if (extent.size == 0) {
    static char nothing = 0;
    return at::from_blob(&nothing, tensor.sizes(), tensor.strides(), options);
  }
  if (materialise) {
    for (const ByteRange& hole : Simulator::instance().materialise(extent.begin, extent.size)) {
      put_typical(tensor.unsafeGetTensorImpl(), hole.begin, hole.size,
                  static_cast<std::size_t>(hole.begin - extent.begin));
    }
  }
  return at::from_blob(extent.begin, tensor.sizes(), tensor.strides(), options);
}

void fill_zero(const at::Tensor& tensor) {
  const Extent extent = extent_of(tensor);
  if (extent.size > 0) Simulator::instance().fill(extent.begin, 0, extent.size);
}

void describe_tensor(const void* tensor_impl, char* text, std::size_t capacity) {
  const auto* impl = static_cast<const c10::TensorImpl*>(tensor_impl);
  std::ostringstream line;
  line << c10::toString(c10::typeMetaToScalarType(impl->dtype())) << ' ' << impl->sizes();
  std::snprintf(text, capacity, "%s", line.str().c_str());
}

}  // namespace ebbtide::dryrun
