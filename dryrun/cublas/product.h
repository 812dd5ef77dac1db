// What a matrix product asks of the device, from what is given to BLAS.
#pragma once

#include <library_types.h>

#include <cstdint>

#include "dryrun/core/work.h"

namespace ebbtide::dryrun {

// `batch` products of (m x k) by (k x n).
struct Product {
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  cudaDataType a = CUDA_R_32F, b = CUDA_R_32F, c = CUDA_R_32F;
  bool uses_tensor_float = false;       // float32 factors are rounded to TensorFloat-32
  int row_alignment = kWholeAlignment;  // the least of its matrices'
};

std::int64_t bytes_of(cudaDataType type);
Work work_of(const Product& product);

// A matrix as BLAS is given it: rows of `length` numbers that lie side by side, `stride` from one
// to the next; `batch_stride` from one product's matrix to the next one's.
struct Rows {
  const void* data = nullptr;  // null where only the device knows
  cudaDataType type = CUDA_R_32F;
  std::int64_t length = 0, stride = 0, batch_stride = 0;
};

// The power of two, 16 at the most, that all rows begin and end at multiples of, in bytes.
int alignment_of(const Rows& rows);

}  // namespace ebbtide::dryrun
