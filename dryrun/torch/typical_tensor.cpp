#include "dryrun/torch/typical_tensor.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <cstring>

#include "dryrun/core/simulator.h"
#include "dryrun/torch/device_tensor.h"
#include "dryrun/torch/host_call.h"

namespace ebbtide::dryrun {

namespace {

const TypicalValues& typical() { return Simulator::instance().settings().typical; }

// `count` elements, the first of which is the tensor's element number `first`.
void put_elements(at::ScalarType type, bool is_single, void* bytes, std::int64_t count,
                  std::int64_t first) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, type, "typical values", [&] {
    auto* elements = static_cast<scalar_t*>(bytes);
    for (std::int64_t i = 0; i < count; ++i) {
      const double value = is_single ? typical().number : typical().element(first + i);
      elements[i] = static_cast<scalar_t>(static_cast<at::opmath_type<scalar_t>>(value));
    }
  });
}

bool has_typical_values(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

// Rows, and how far apart their slots are, of a contiguous tensor that is read along `dim`.
struct ChoiceRows {
  std::int64_t outer = 1, slots = 1, inner = 1;
};

ChoiceRows rows_of(const at::Tensor& indices, std::int64_t dim, bool keeps_dim) {
  ChoiceRows rows;
  for (std::int64_t i = 0; i < indices.dim(); ++i) {
    if (keeps_dim && i == dim) {
      rows.slots = indices.size(i);
    } else if (i < dim) {
      rows.outer *= indices.size(i);
    } else {
      rows.inner *= indices.size(i);
    }
  }
  return rows;
}

}  // namespace

void put_typical(const void* tensor_impl, void* bytes, std::size_t size, std::size_t offset) {
  const auto* impl = static_cast<const c10::TensorImpl*>(tensor_impl);
  const at::ScalarType type = c10::typeMetaToScalarType(impl->dtype());
  const std::size_t width = impl->dtype().itemsize();
  std::memset(bytes, 0, size);
  // What begins amid an element belongs to another tensor's view: its bytes stay zero.
  if (!has_typical_values(type) || offset % width != 0) return;
  put_elements(type, impl->numel() == 1, bytes, static_cast<std::int64_t>(size / width),
               static_cast<std::int64_t>(offset / width));
}

at::Tensor typical_like(const at::Tensor& tensor) {
  const HostScope scope;
  at::Tensor host =
      at::empty(tensor.sizes(), tensor.options().device(at::kCPU).requires_grad(false));
  put_typical(tensor.unsafeGetTensorImpl(), host.data_ptr(), host.nbytes(), 0);
  return host;
}

void put_choices(const at::Tensor& indices, const at::Tensor& among, std::int64_t dim) {
  if (indices.numel() == 0) return;
  dim = at::maybe_wrap_dim(dim, among.dim());
  const std::int64_t candidates = among.dim() == 0 ? 1 : among.size(dim);
  const bool keeps_dim = indices.dim() == among.dim() && indices.dim() > 0;
  const ChoiceRows rows = rows_of(indices, dim, keeps_dim);
  const HostScope scope;
  at::Tensor host = at::empty(indices.sizes(), at::TensorOptions(at::kLong).device(at::kCPU));
  auto* chosen = host.mutable_data_ptr<std::int64_t>();
  for (std::int64_t outer = 0; outer < rows.outer; ++outer) {
    for (std::int64_t slot = 0; slot < rows.slots; ++slot) {
      for (std::int64_t inner = 0; inner < rows.inner; ++inner) {
        *chosen++ = typical().choice(outer * rows.inner + inner, slot, rows.slots, candidates);
      }
    }
  }
  write_result(indices, host, Content::kDerived);
  ++Simulator::instance().counters().typical_choices;
}

void put_found_inf(const at::Tensor& found_inf) {
  const HostScope scope;
  const auto options = at::TensorOptions(found_inf.scalar_type()).device(at::kCPU);
  write_result(found_inf, at::full(found_inf.sizes(), typical().found_inf, options),
               Content::kDerived);
}

}  // namespace ebbtide::dryrun
