// Cholesky's, LU, QR and LDL factorisations, reflectors, and solving with them: a function for each type, then
// those that are told the type.
#include <algorithm>

#include "dryrun/cusolver/answer.h"
#include "dryrun/cusolver/handle.h"
#include "dryrun/cusolver/workspace.h"

using namespace ebbtide::dryrun;

namespace {

// The symmetric indefinite factorisation: half of LU's operations, and its pivots.
Work ldl_work(const Matrices& square) {
  Work work = lu_work(square);
  work.flops /= 2;
  return work;
}

}  // namespace

#define EBBTIDE_CHOLESKY(L, MAKE, APPLY, SY, T, R, TYPE)                                            \
  cusolverStatus_t cusolverDn##L##potrf_bufferSize(cusolverDnHandle_t, cublasFillMode_t, int n, T*, \
                                                   int, int* size) {                                \
    return answer(size, block_columns(n));                                                          \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##potrf(cusolverDnHandle_t handle, cublasFillMode_t, int n, T*, int,\
                                        T*, int, int*) {                                            \
    return note(handle, cholesky_work(matrices_of(TYPE, n, n)));                                    \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##potrfBatched(cusolverDnHandle_t handle, cublasFillMode_t, int n,  \
                                               T*[], int, int*, int batch) {                        \
    return note(handle, cholesky_work(matrices_of(TYPE, n, n, batch)));                             \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##potrs(cusolverDnHandle_t handle, cublasFillMode_t, int n,         \
                                        int sides, const T*, int, T*, int, int*) {                  \
    return note(handle, solve_work(matrices_of(TYPE, n, n), sides, 2));                             \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##potrsBatched(cusolverDnHandle_t handle, cublasFillMode_t, int n,  \
                                               int sides, T*[], int, T*[], int, int*, int batch) {  \
    return note(handle, solve_work(matrices_of(TYPE, n, n, batch), sides, 2));                      \
  }

#define EBBTIDE_LU(L, MAKE, APPLY, SY, T, R, TYPE)                                                  \
  cusolverStatus_t cusolverDn##L##getrf_bufferSize(cusolverDnHandle_t, int m, int n, T*, int,       \
                                                   int* size) {                                     \
    return answer(size, block_columns(std::max(m, n)));                                             \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##getrf(cusolverDnHandle_t handle, int m, int n, T*, int, T*, int*, \
                                        int*) {                                                     \
    return note(handle, lu_work(matrices_of(TYPE, m, n)));                                          \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##getrs(cusolverDnHandle_t handle, cublasOperation_t, int n,        \
                                        int sides, const T*, int, const int*, T*, int, int*) {      \
    return note(handle, solve_work(matrices_of(TYPE, n, n), sides, 2));                             \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##sytrf_bufferSize(cusolverDnHandle_t, int n, T*, int, int* size) { \
    return answer(size, block_columns(n));                                                          \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##sytrf(cusolverDnHandle_t handle, cublasFillMode_t, int n, T*, int,\
                                        int*, T*, int, int*) {                                      \
    return note(handle, ldl_work(matrices_of(TYPE, n, n)));                                         \
  }

#define EBBTIDE_QR(L, MAKE, APPLY, SY, T, R, TYPE)                                                  \
  cusolverStatus_t cusolverDn##L##geqrf_bufferSize(cusolverDnHandle_t, int, int n, T*, int,         \
                                                   int* size) {                                     \
    return answer(size, block_columns(n));                                                          \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##geqrf(cusolverDnHandle_t handle, int m, int n, T*, int, T*, T*,   \
                                        int, int*) {                                                \
    return note(handle, qr_work(matrices_of(TYPE, m, n)));                                          \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##MAKE##_bufferSize(cusolverDnHandle_t, int, int n, int, const T*,  \
                                                     int, const T*, int* size) {                    \
    return answer(size, block_columns(n));                                                          \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##MAKE(cusolverDnHandle_t handle, int m, int n, int k, T*, int,     \
                                          const T*, T*, int, int*) {                                \
    return note(handle, reflector_work(matrices_of(TYPE, m, n), k));                                \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##APPLY##_bufferSize(                                               \
      cusolverDnHandle_t, cublasSideMode_t, cublasOperation_t, int m, int n, int, const T*, int,    \
      const T*, const T*, int, int* size) {                                                         \
    return answer(size, block_columns(std::max(m, n)));                                             \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##APPLY(cusolverDnHandle_t handle, cublasSideMode_t side,           \
                                          cublasOperation_t, int m, int n, int k, const T*, int,    \
                                          const T*, T*, int, T*, int, int*) {                       \
    const bool is_left = side == CUBLAS_SIDE_LEFT;                                                  \
    return note(handle, reflector_work(matrices_of(TYPE, is_left ? m : n, is_left ? n : m), k));    \
  }

extern "C" {

EBBTIDE_EACH_TYPE(EBBTIDE_CHOLESKY)
EBBTIDE_EACH_TYPE(EBBTIDE_LU)
EBBTIDE_EACH_TYPE(EBBTIDE_QR)

cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t, cusolverDnParams_t,
                                             cublasFillMode_t, std::int64_t n, cudaDataType type,
                                             const void*, std::int64_t, cudaDataType,
                                             std::size_t* device, std::size_t* host) {
  return answer(device, host, type, block_columns(static_cast<double>(n)));
}
cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t handle, cusolverDnParams_t, cublasFillMode_t,
                                  std::int64_t n, cudaDataType type, void*, std::int64_t,
                                  cudaDataType, void*, std::size_t, void*, std::size_t, int*) {
  const auto size = static_cast<double>(n);
  return note(handle, cholesky_work(matrices_of(type, size, size)));
}
cusolverStatus_t cusolverDnXpotrs(cusolverDnHandle_t handle, cusolverDnParams_t, cublasFillMode_t,
                                  std::int64_t n, std::int64_t sides, cudaDataType type,
                                  const void*, std::int64_t, cudaDataType, void*, std::int64_t,
                                  int*) {
  const auto size = static_cast<double>(n);
  return note(handle, solve_work(matrices_of(type, size, size), static_cast<double>(sides), 2));
}

cusolverStatus_t cusolverDnXgeqrf_bufferSize(cusolverDnHandle_t, cusolverDnParams_t, std::int64_t,
                                             std::int64_t n, cudaDataType type, const void*,
                                             std::int64_t, cudaDataType, const void*, cudaDataType,
                                             std::size_t* device, std::size_t* host) {
  return answer(device, host, type, block_columns(static_cast<double>(n)));
}
cusolverStatus_t cusolverDnXgeqrf(cusolverDnHandle_t handle, cusolverDnParams_t, std::int64_t m,
                                  std::int64_t n, cudaDataType type, void*, std::int64_t,
                                  cudaDataType, void*, cudaDataType, void*, std::size_t, void*,
                                  std::size_t, int*) {
  return note(handle, qr_work(matrices_of(type, static_cast<double>(m), static_cast<double>(n))));
}

cusolverStatus_t cusolverDnXsytrs_bufferSize(cusolverDnHandle_t, cublasFillMode_t, std::int64_t n,
                                             std::int64_t, cudaDataType type, const void*,
                                             std::int64_t, const std::int64_t*, cudaDataType, void*,
                                             std::int64_t, std::size_t* device, std::size_t* host) {
  return answer(device, host, type, block_columns(static_cast<double>(n)));
}
cusolverStatus_t cusolverDnXsytrs(cusolverDnHandle_t handle, cublasFillMode_t, std::int64_t n,
                                  std::int64_t sides, cudaDataType type, const void*, std::int64_t,
                                  const std::int64_t*, cudaDataType, void*, std::int64_t, void*,
                                  std::size_t, void*, std::size_t, int*) {
  const auto size = static_cast<double>(n);
  return note(handle, solve_work(matrices_of(type, size, size), static_cast<double>(sides), 2));
}

}  // extern "C"
