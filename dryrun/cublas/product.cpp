#include "dryrun/cublas/product.h"

#include <numeric>

namespace ebbtide::dryrun {

std::int64_t bytes_of(cudaDataType type) {
  switch (type) {
    case CUDA_C_64F:
      return 16;
    case CUDA_R_64F:
    case CUDA_C_32F:
      return 8;
    case CUDA_R_16F:
    case CUDA_R_16BF:
      return 2;
    case CUDA_R_8I:
    case CUDA_R_8F_E4M3:
    case CUDA_R_8F_E5M2:
      return 1;
    default:
      return 4;
  }
}

namespace {

NumberKind numbers_of(const Product& product) {
  switch (product.a) {
    case CUDA_R_64F:
    case CUDA_C_64F:
      return NumberKind::kFloat64;
    case CUDA_R_16F:
      return NumberKind::kFloat16;
    case CUDA_R_16BF:
      return NumberKind::kBFloat16;
    case CUDA_R_8I:
    case CUDA_R_8F_E4M3:
    case CUDA_R_8F_E5M2:
      return NumberKind::kFloat8;
    default:
      return product.uses_tensor_float ? NumberKind::kTensorFloat32 : NumberKind::kFloat32;
  }
}

}  // namespace

Work work_of(const Product& product) {
  const bool is_complex = product.a == CUDA_C_32F || product.a == CUDA_C_64F;
  const auto m = static_cast<double>(product.m);
  const auto n = static_cast<double>(product.n);
  const auto k = static_cast<double>(product.k);
  const auto batch = static_cast<double>(product.batch);
  const double bytes = m * k * static_cast<double>(bytes_of(product.a)) +
                       k * n * static_cast<double>(bytes_of(product.b)) +
                       m * n * static_cast<double>(bytes_of(product.c));
  return {.activity = Activity::kMatrix,
          .flops = (is_complex ? 8 : 2) * m * n * k * batch,
          .bytes = bytes * batch,
          .numbers = numbers_of(product),
          .product = {m, n, k, batch},
          .row_alignment = product.row_alignment};
}

int alignment_of(const Rows& rows) {
  const std::int64_t numbers = std::gcd(std::gcd(rows.length, rows.stride), rows.batch_stride);
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(rows.data));
  const std::int64_t bytes = std::gcd(numbers * bytes_of(rows.type), address);
  return static_cast<int>(std::gcd(bytes, std::int64_t{kWholeAlignment}));
}

}  // namespace ebbtide::dryrun
