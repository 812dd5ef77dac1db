// What a matrix product asks of the device, from the shapes given to BLAS.
#pragma once

#include <library_types.h>

#include <cstdint>

#include "dryrun/core/work.h"

namespace ebbtide::dryrun {

// `batch` products of (m x k) by (k x n).
struct Product {
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  cudaDataType a = CUDA_R_32F, b = CUDA_R_32F, c = CUDA_R_32F;
  bool uses_tensor_float = false;  // float32 factors are rounded to TensorFloat-32
};

std::int64_t bytes_of(cudaDataType type);
Work work_of(const Product& product);

}  // namespace ebbtide::dryrun
