// cuBLAS's triangular solutions and batched factorisations: nothing is computed, but their time is known from
// their shapes. Those that report to the host report success.
#include "dryrun/core/factorisation.h"
#include "dryrun/core/stream.h"
#include "dryrun/cublas/handle.h"

using ebbtide::dryrun::lu_work;
using ebbtide::dryrun::Matrices;
using ebbtide::dryrun::note_work;
using ebbtide::dryrun::NumberKind;
using ebbtide::dryrun::qr_work;
using ebbtide::dryrun::reflector_work;
using ebbtide::dryrun::solve_work;
using ebbtide::dryrun::Work;

namespace {

cublasStatus_t note(cublasHandle_t handle, const Work& work) {
  if (work.bytes > 0) note_work(handle->stream, work);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t succeed(int* info) {
  *info = 0;
  return CUBLAS_STATUS_SUCCESS;
}

// The triangular matrix is on one of two sides of an m x n one.
cublasStatus_t note_triangular(cublasHandle_t handle, cublasSideMode_t side, int m, int n,
                               NumberKind numbers, bool is_complex, int batch = 1) {
  const bool is_left = side == CUBLAS_SIDE_LEFT;
  const double size = is_left ? m : n;
  const Matrices square{size, size, static_cast<double>(batch), numbers, is_complex};
  return note(handle, solve_work(square, is_left ? n : m, 1));
}

}  // namespace

#define EBBTIDE_TRIANGULAR(L, T, NUMBERS, IS_COMPLEX)                                               \
  cublasStatus_t cublas##L##trsm_v2(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t, \
                                    cublasOperation_t, cublasDiagType_t, int m, int n, const T*,    \
                                    const T*, int, T*, int) {                                       \
    return note_triangular(handle, side, m, n, NUMBERS, IS_COMPLEX);                                \
  }                                                                                                 \
  cublasStatus_t cublas##L##trsmBatched(cublasHandle_t handle, cublasSideMode_t side,               \
                                        cublasFillMode_t, cublasOperation_t, cublasDiagType_t,      \
                                        int m, int n, const T*, const T* const[], int, T* const[],  \
                                        int, int batch) {                                           \
    return note_triangular(handle, side, m, n, NUMBERS, IS_COMPLEX, batch);                         \
  }

#define EBBTIDE_BATCHED(L, T, NUMBERS, IS_COMPLEX)                                                  \
  cublasStatus_t cublas##L##getrfBatched(cublasHandle_t handle, int n, T* const[], int, int*, int*, \
                                         int batch) {                                               \
    const double size = n;                                                                          \
    return note(handle, lu_work({size, size, static_cast<double>(batch), NUMBERS, IS_COMPLEX}));    \
  }                                                                                                 \
  cublasStatus_t cublas##L##getrsBatched(cublasHandle_t handle, cublasOperation_t, int n, int sides,\
                                         const T* const[], int, const int*, T* const[], int,        \
                                         int* info, int batch) {                                    \
    const double size = n;                                                                          \
    note(handle, solve_work({size, size, static_cast<double>(batch), NUMBERS, IS_COMPLEX}, sides, 2)); \
    return succeed(info);                                                                           \
  }                                                                                                 \
  cublasStatus_t cublas##L##geqrfBatched(cublasHandle_t handle, int m, int n, T* const[], int,      \
                                         T* const[], int* info, int batch) {                        \
    note(handle, qr_work({static_cast<double>(m), static_cast<double>(n),                           \
                          static_cast<double>(batch), NUMBERS, IS_COMPLEX}));                       \
    return succeed(info);                                                                           \
  }                                                                                                 \
  cublasStatus_t cublas##L##gelsBatched(cublasHandle_t handle, cublasOperation_t, int m, int n,     \
                                        int sides, T* const[], int, T* const[], int, int* info,     \
                                        int*, int batch) {                                          \
    const double rows = m, columns = n, count = batch;                                              \
    note(handle, qr_work({rows, columns, count, NUMBERS, IS_COMPLEX}));                             \
    note(handle, reflector_work({rows, static_cast<double>(sides), count, NUMBERS, IS_COMPLEX}, columns)); \
    note(handle, solve_work({columns, columns, count, NUMBERS, IS_COMPLEX}, sides, 1));             \
    return succeed(info);                                                                           \
  }

#define EBBTIDE_EACH_TYPE(DEFINE)                                                                   \
  DEFINE(S, float, NumberKind::kFloat32, false)                                                     \
  DEFINE(D, double, NumberKind::kFloat64, false)                                                    \
  DEFINE(C, cuComplex, NumberKind::kFloat32, true)                                                  \
  DEFINE(Z, cuDoubleComplex, NumberKind::kFloat64, true)

extern "C" {

EBBTIDE_EACH_TYPE(EBBTIDE_TRIANGULAR)
EBBTIDE_EACH_TYPE(EBBTIDE_BATCHED)

}  // extern "C"
