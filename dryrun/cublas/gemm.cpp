// cuBLAS's matrix products: nothing is computed, but their time is known from their shapes. Those
// that are only listed in exports/noops.txt (level 1, products with vectors) take no time.
#include <algorithm>

#include "dryrun/core/stream.h"
#include "dryrun/cublas/handle.h"
#include "dryrun/cublas/product.h"

using ebbtide::dryrun::alignment_of;
using ebbtide::dryrun::note_work;
using ebbtide::dryrun::Product;
using ebbtide::dryrun::Rows;
using ebbtide::dryrun::work_of;

namespace {

bool uses_tensor_float(cublasHandle_t handle) {
  return (handle->math_mode & 0xf) == CUBLAS_TF32_TENSOR_OP_MATH;
}

bool uses_tensor_float(cublasHandle_t handle, cublasComputeType_t type) {
  return type == CUBLAS_COMPUTE_32F_FAST_TF32 ||
         (type == CUBLAS_COMPUTE_32F && uses_tensor_float(handle));
}

// A matrix as these functions are given it: columns are what lies side by side.
struct Matrix {
  const void* data;
  cudaDataType type;
  std::int64_t leading, batch_stride = 0;

  Rows rows(std::int64_t length) const { return {data, type, length, leading, batch_stride}; }
};

struct Sizes {
  std::int64_t m, n, k, batch = 1;
};

cublasStatus_t note(cublasHandle_t handle, const Product& product) {
  if (product.m > 0 && product.n > 0 && product.batch > 0) {
    note_work(handle->stream, work_of(product));
  }
  return CUBLAS_STATUS_SUCCESS;
}

struct Turned {
  bool a, b;

  Turned(cublasOperation_t of_a, cublasOperation_t of_b)
      : a(of_a != CUBLAS_OP_N), b(of_b != CUBLAS_OP_N) {}
};

cublasStatus_t note(cublasHandle_t handle, const Turned& turned, const Sizes& sizes,
                    const Matrix& a, const Matrix& b, const Matrix& c, bool uses_tensor_float) {
  const int alignment =
      std::min({alignment_of(a.rows(turned.a ? sizes.k : sizes.m)),
                alignment_of(b.rows(turned.b ? sizes.n : sizes.k)), alignment_of(c.rows(sizes.m))});
  return note(handle, {sizes.m, sizes.n, sizes.k, sizes.batch, a.type, b.type, c.type,
                       uses_tensor_float, alignment});
}

}  // namespace

extern "C" {

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b,
                            int m, int n, int k, const void*, const void* a, cudaDataType a_type,
                            int lda, const void* b, cudaDataType b_type, int ldb, const void*,
                            void* c, cudaDataType c_type, int ldc, cublasComputeType_t type,
                            cublasGemmAlgo_t) {
  return note(handle, {of_a, of_b}, {m, n, k}, {a, a_type, lda}, {b, b_type, ldb}, {c, c_type, ldc},
              uses_tensor_float(handle, type));
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t of_a,
                                          cublasOperation_t of_b, int m, int n, int k, const void*,
                                          const void* a, cudaDataType a_type, int lda,
                                          long long a_stride, const void* b, cudaDataType b_type,
                                          int ldb, long long b_stride, const void*, void* c,
                                          cudaDataType c_type, int ldc, long long c_stride,
                                          int batch, cublasComputeType_t type, cublasGemmAlgo_t) {
  return note(handle, {of_a, of_b}, {m, n, k, batch}, {a, a_type, lda, a_stride},
              {b, b_type, ldb, b_stride}, {c, c_type, ldc, c_stride},
              uses_tensor_float(handle, type));
}

cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t of_a,
                                   cublasOperation_t of_b, int m, int n, int k, const void*,
                                   const void* const[], cudaDataType a_type, int lda,
                                   const void* const[], cudaDataType b_type, int ldb, const void*,
                                   void* const[], cudaDataType c_type, int ldc, int batch,
                                   cublasComputeType_t type, cublasGemmAlgo_t) {
  return note(handle, {of_a, of_b}, {m, n, k, batch}, {nullptr, a_type, lda},
              {nullptr, b_type, ldb}, {nullptr, c_type, ldc}, uses_tensor_float(handle, type));
}

cublasStatus_t cublasSgemmEx(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b,
                             int m, int n, int k, const float*, const void* a, cudaDataType a_type,
                             int lda, const void* b, cudaDataType b_type, int ldb, const float*,
                             void* c, cudaDataType c_type, int ldc) {
  return note(handle, {of_a, of_b}, {m, n, k}, {a, a_type, lda}, {b, b_type, ldb}, {c, c_type, ldc},
              uses_tensor_float(handle));
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b,
                              int m, int n, int k, const float*, const float* a, int lda,
                              const float* b, int ldb, const float*, float* c, int ldc) {
  return note(handle, {of_a, of_b}, {m, n, k}, {a, CUDA_R_32F, lda}, {b, CUDA_R_32F, ldb},
              {c, CUDA_R_32F, ldc}, uses_tensor_float(handle));
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t, cublasOperation_t, int m,
                              int n, int k, const double*, const double*, int, const double*, int,
                              const double*, double*, int) {
  return note(handle, {m, n, k, 1, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F});
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t of_a,
                                         cublasOperation_t of_b, int m, int n, int k, const float*,
                                         const float* a, int lda, long long a_stride,
                                         const float* b, int ldb, long long b_stride, const float*,
                                         float* c, int ldc, long long c_stride, int batch) {
  return note(handle, {of_a, of_b}, {m, n, k, batch}, {a, CUDA_R_32F, lda, a_stride},
              {b, CUDA_R_32F, ldb, b_stride}, {c, CUDA_R_32F, ldc, c_stride},
              uses_tensor_float(handle));
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t,
                                         cublasOperation_t, int m, int n, int k, const double*,
                                         const double*, int, long long, const double*, int,
                                         long long, const double*, double*, int, long long,
                                         int batch) {
  return note(handle, {m, n, k, batch, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F});
}

cublasStatus_t cublasCgemm_v2(cublasHandle_t handle, cublasOperation_t, cublasOperation_t, int m,
                              int n, int k, const cuComplex*, const cuComplex*, int,
                              const cuComplex*, int, const cuComplex*, cuComplex*, int) {
  return note(handle, {m, n, k, 1, CUDA_C_32F, CUDA_C_32F, CUDA_C_32F, uses_tensor_float(handle)});
}
cublasStatus_t cublasZgemm_v2(cublasHandle_t handle, cublasOperation_t, cublasOperation_t, int m,
                              int n, int k, const cuDoubleComplex*, const cuDoubleComplex*, int,
                              const cuDoubleComplex*, int, const cuDoubleComplex*,
                              cuDoubleComplex*, int) {
  return note(handle, {m, n, k, 1, CUDA_C_64F, CUDA_C_64F, CUDA_C_64F});
}
cublasStatus_t cublasCgemmStridedBatched(cublasHandle_t handle, cublasOperation_t,
                                         cublasOperation_t, int m, int n, int k, const cuComplex*,
                                         const cuComplex*, int, long long, const cuComplex*, int,
                                         long long, const cuComplex*, cuComplex*, int, long long,
                                         int batch) {
  return note(handle,
              {m, n, k, batch, CUDA_C_32F, CUDA_C_32F, CUDA_C_32F, uses_tensor_float(handle)});
}
cublasStatus_t cublasZgemmStridedBatched(cublasHandle_t handle, cublasOperation_t,
                                         cublasOperation_t, int m, int n, int k,
                                         const cuDoubleComplex*, const cuDoubleComplex*, int,
                                         long long, const cuDoubleComplex*, int, long long,
                                         const cuDoubleComplex*, cuDoubleComplex*, int, long long,
                                         int batch) {
  return note(handle, {m, n, k, batch, CUDA_C_64F, CUDA_C_64F, CUDA_C_64F});
}

// A matrix and a vector: bound by memory, whatever its rows begin at.
cublasStatus_t cublasSgemv_v2(cublasHandle_t handle, cublasOperation_t, int m, int n, const float*,
                              const float*, int, const float*, int, const float*, float*, int) {
  return note(handle, {m, 1, n, 1, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, uses_tensor_float(handle)});
}
cublasStatus_t cublasDgemv_v2(cublasHandle_t handle, cublasOperation_t, int m, int n, const double*,
                              const double*, int, const double*, int, const double*, double*, int) {
  return note(handle, {m, 1, n, 1, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F});
}

}  // extern "C"
