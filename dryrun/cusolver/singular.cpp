// Singular values: by reduction, by Jacobi's method alone and in batches, and of many tall matrices.
#include "dryrun/cusolver/answer.h"
#include "dryrun/cusolver/handle.h"
#include "dryrun/cusolver/workspace.h"

using namespace ebbtide::dryrun;

namespace {

cusolverStatus_t note_singular(cusolverDnHandle_t handle, bool has_vectors, Method method,
                               const Matrices& matrices) {
  return note(handle, singular_work(matrices, method, has_vectors));
}

}  // namespace

#define EBBTIDE_SINGULAR(L, MAKE, APPLY, SY, T, R, TYPE)                                           \
  cusolverStatus_t cusolverDn##L##gesvd_bufferSize(cusolverDnHandle_t, int m, int n, int* size) {   \
    return answer(size, singular_elements(m, n));                                                   \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##gesvd(cusolverDnHandle_t handle, signed char jobs, signed char,   \
                                        int m, int n, T*, int, R*, T*, int, T*, int, T*, int, R*,   \
                                        int*) {                                                     \
    return note_singular(handle, jobs != 'N', Method::kReduction, matrices_of(TYPE, m, n));         \
  }

#define EBBTIDE_SINGULAR_JACOBI(L, MAKE, APPLY, SY, T, R, TYPE)                                              \
  cusolverStatus_t cusolverDn##L##gesvdj_bufferSize(                                                \
      cusolverDnHandle_t, cusolverEigMode_t, int, int m, int n, const T*, int, const R*, const T*,  \
      int, const T*, int, int* size, gesvdjInfo_t) {                                                \
    return answer(size, singular_jacobi_elements(m, n));                                            \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##gesvdj(cusolverDnHandle_t handle, cusolverEigMode_t mode, int,    \
                                         int m, int n, T*, int, R*, T*, int, T*, int, T*, int, int*,\
                                         gesvdjInfo_t) {                                            \
    return note_singular(handle, has_vectors(mode), Method::kJacobi, matrices_of(TYPE, m, n));      \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##gesvdjBatched_bufferSize(                                         \
      cusolverDnHandle_t, cusolverEigMode_t, int m, int n, const T*, int, const R*, const T*, int,  \
      const T*, int, int* size, gesvdjInfo_t, int batch) {                                          \
    return answer(size, singular_batched_elements(m, n, batch));                                    \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##gesvdjBatched(cusolverDnHandle_t handle, cusolverEigMode_t mode,  \
                                                int m, int n, T*, int, R*, T*, int, T*, int, T*,    \
                                                int, int*, gesvdjInfo_t, int batch) {               \
    return note_singular(handle, has_vectors(mode), Method::kSmall,                                 \
                         matrices_of(TYPE, m, n, batch));                                           \
  }

#define EBBTIDE_TALL(L, MAKE, APPLY, SY, T, R, TYPE)                                                \
  cusolverStatus_t cusolverDn##L##gesvdaStridedBatched_bufferSize(                                  \
      cusolverDnHandle_t, cusolverEigMode_t, int, int m, int n, const T*, int, long long, const R*, \
      long long, const T*, int, long long, const T*, int, long long, int* size, int batch) {        \
    return answer(size, singular_batched_elements(m, n, batch));                                    \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##gesvdaStridedBatched(                                             \
      cusolverDnHandle_t handle, cusolverEigMode_t mode, int, int m, int n, const T*, int,          \
      long long, R*, long long, T*, int, long long, T*, int, long long, T*, int, int*, double*,     \
      int batch) {                                                                                  \
    return note_singular(handle, has_vectors(mode), Method::kGram,                                  \
                         matrices_of(TYPE, m, n, batch));                                           \
  }

extern "C" {

EBBTIDE_EACH_TYPE(EBBTIDE_SINGULAR)
EBBTIDE_EACH_TYPE(EBBTIDE_SINGULAR_JACOBI)
EBBTIDE_EACH_TYPE(EBBTIDE_TALL)

}  // extern "C"
