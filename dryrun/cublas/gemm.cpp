// cuBLAS's matrix products: nothing is computed, but their time is known from their shapes. Those
// that are only listed in exports/noops.txt (solvers, factorisations, level 1) take no time.
#include "dryrun/core/stream.h"
#include "dryrun/cublas/handle.h"
#include "dryrun/cublas/product.h"

using ebbtide::dryrun::note_work;
using ebbtide::dryrun::Product;
using ebbtide::dryrun::work_of;

namespace {

bool uses_tensor_float(cublasHandle_t handle) {
  return (handle->math_mode & 0xf) == CUBLAS_TF32_TENSOR_OP_MATH;
}

bool uses_tensor_float(cublasHandle_t handle, cublasComputeType_t type) {
  return type == CUBLAS_COMPUTE_32F_FAST_TF32 ||
         (type == CUBLAS_COMPUTE_32F && uses_tensor_float(handle));
}

cublasStatus_t note(cublasHandle_t handle, const Product& product) {
  if (product.m > 0 && product.n > 0 && product.batch > 0) {
    note_work(handle->stream, work_of(product));
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t note(cublasHandle_t handle, std::int64_t m, std::int64_t n, std::int64_t k,
                    std::int64_t batch, cudaDataType type) {
  return note(handle, {m, n, k, batch, type, type, type, uses_tensor_float(handle)});
}

}  // namespace

extern "C" {

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t, cublasOperation_t, int m,
                            int n, int k, const void*, const void*, cudaDataType a, int,
                            const void*, cudaDataType b, int, const void*, void*, cudaDataType c,
                            int, cublasComputeType_t type, cublasGemmAlgo_t) {
  return note(handle, {m, n, k, 1, a, b, c, uses_tensor_float(handle, type)});
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t,
                                          cublasOperation_t, int m, int n, int k, const void*,
                                          const void*, cudaDataType a, int, long long, const void*,
                                          cudaDataType b, int, long long, const void*, void*,
                                          cudaDataType c, int, long long, int batch,
                                          cublasComputeType_t type, cublasGemmAlgo_t) {
  return note(handle, {m, n, k, batch, a, b, c, uses_tensor_float(handle, type)});
}

cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t, cublasOperation_t,
                                   int m, int n, int k, const void*, const void* const[],
                                   cudaDataType a, int, const void* const[], cudaDataType b, int,
                                   const void*, void* const[], cudaDataType c, int, int batch,
                                   cublasComputeType_t type, cublasGemmAlgo_t) {
  return note(handle, {m, n, k, batch, a, b, c, uses_tensor_float(handle, type)});
}

cublasStatus_t cublasSgemmEx(cublasHandle_t handle, cublasOperation_t, cublasOperation_t, int m,
                             int n, int k, const float*, const void*, cudaDataType a, int,
                             const void*, cudaDataType b, int, const float*, void*, cudaDataType c,
                             int) {
  return note(handle, {m, n, k, 1, a, b, c, uses_tensor_float(handle)});
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t, cublasOperation_t, int m,
                              int n, int k, const float*, const float*, int, const float*, int,
                              const float*, float*, int) {
  return note(handle, m, n, k, 1, CUDA_R_32F);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t, cublasOperation_t, int m,
                              int n, int k, const double*, const double*, int, const double*, int,
                              const double*, double*, int) {
  return note(handle, m, n, k, 1, CUDA_R_64F);
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t,
                                         cublasOperation_t, int m, int n, int k, const float*,
                                         const float*, int, long long, const float*, int, long long,
                                         const float*, float*, int, long long, int batch) {
  return note(handle, m, n, k, batch, CUDA_R_32F);
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t,
                                         cublasOperation_t, int m, int n, int k, const double*,
                                         const double*, int, long long, const double*, int,
                                         long long, const double*, double*, int, long long,
                                         int batch) {
  return note(handle, m, n, k, batch, CUDA_R_64F);
}

cublasStatus_t cublasSgemv_v2(cublasHandle_t handle, cublasOperation_t, int m, int n, const float*,
                              const float*, int, const float*, int, const float*, float*, int) {
  return note(handle, m, 1, n, 1, CUDA_R_32F);
}
cublasStatus_t cublasDgemv_v2(cublasHandle_t handle, cublasOperation_t, int m, int n, const double*,
                              const double*, int, const double*, int, const double*, double*, int) {
  return note(handle, m, 1, n, 1, CUDA_R_64F);
}

}  // extern "C"
