// Eigenvalues of symmetric (Hermitian) matrices, by reduction and by Jacobi's method, and of any matrix.
#include "dryrun/cusolver/answer.h"
#include "dryrun/cusolver/handle.h"
#include "dryrun/cusolver/workspace.h"

using namespace ebbtide::dryrun;

namespace {

Method batched_method(double n) {
  constexpr double kMostInBlock = 32;
  return n <= kMostInBlock ? Method::kSmall : Method::kReduction;
}

cusolverStatus_t note_symmetric(cusolverDnHandle_t handle, cusolverEigMode_t mode, Method method,
                                cudaDataType type, double n, double batch = 1) {
  return note(handle, symmetric_eigen_work(matrices_of(type, n, n, batch), method, has_vectors(mode)));
}

}  // namespace

#define EBBTIDE_SYMMETRIC(L, MAKE, APPLY, SY, T, R, TYPE)                                           \
  cusolverStatus_t cusolverDn##L##SY##evd_bufferSize(cusolverDnHandle_t, cusolverEigMode_t mode,    \
                                                     cublasFillMode_t, int n, const T*, int,        \
                                                     const R*, int* size) {                         \
    return answer(size, symmetric_eigen_elements(n, has_vectors(mode)));                            \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##SY##evd(cusolverDnHandle_t handle, cusolverEigMode_t mode,        \
                                          cublasFillMode_t, int n, T*, int, R*, T*, int, int*) {    \
    return note_symmetric(handle, mode, Method::kReduction, TYPE, n);                               \
  }

#define EBBTIDE_SYMMETRIC_JACOBI(L, MAKE, APPLY, SY, T, R, TYPE)                                              \
  cusolverStatus_t cusolverDn##L##SY##evj_bufferSize(cusolverDnHandle_t, cusolverEigMode_t,         \
                                                     cublasFillMode_t, int n, const T*, int,        \
                                                     const R*, int* size, syevjInfo_t) {            \
    return answer(size, symmetric_jacobi_elements(n));                                              \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##SY##evj(cusolverDnHandle_t handle, cusolverEigMode_t mode,        \
                                          cublasFillMode_t, int n, T*, int, R*, T*, int, int*,      \
                                          syevjInfo_t) {                                            \
    return note_symmetric(handle, mode, Method::kJacobi, TYPE, n);                                  \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##SY##evjBatched_bufferSize(                                        \
      cusolverDnHandle_t, cusolverEigMode_t, cublasFillMode_t, int n, const T*, int, const R*,      \
      int* size, syevjInfo_t, int batch) {                                                          \
    return answer(size, batched_jacobi_elements(n, batch));                                         \
  }                                                                                                 \
  cusolverStatus_t cusolverDn##L##SY##evjBatched(cusolverDnHandle_t handle, cusolverEigMode_t mode, \
                                                 cublasFillMode_t, int n, T*, int, R*, T*, int,     \
                                                 int*, syevjInfo_t, int batch) {                    \
    return note_symmetric(handle, mode, batched_method(n), TYPE, n, batch);                         \
  }

extern "C" {

EBBTIDE_EACH_TYPE(EBBTIDE_SYMMETRIC)
EBBTIDE_EACH_TYPE(EBBTIDE_SYMMETRIC_JACOBI)

cusolverStatus_t cusolverDnXsyevd_bufferSize(cusolverDnHandle_t, cusolverDnParams_t,
                                             cusolverEigMode_t mode, cublasFillMode_t,
                                             std::int64_t n, cudaDataType type, const void*,
                                             std::int64_t, cudaDataType, const void*, cudaDataType,
                                             std::size_t* device, std::size_t* host) {
  return answer(device, host, type,
                symmetric_eigen_elements(static_cast<double>(n), has_vectors(mode)));
}
cusolverStatus_t cusolverDnXsyevd(cusolverDnHandle_t handle, cusolverDnParams_t,
                                  cusolverEigMode_t mode, cublasFillMode_t, std::int64_t n,
                                  cudaDataType type, void*, std::int64_t, cudaDataType, void*,
                                  cudaDataType, void*, std::size_t, void*, std::size_t, int*) {
  return note_symmetric(handle, mode, Method::kReduction, type, static_cast<double>(n));
}

cusolverStatus_t cusolverDnXsyevBatched_bufferSize(
    cusolverDnHandle_t, cusolverDnParams_t, cusolverEigMode_t mode, cublasFillMode_t,
    std::int64_t n, cudaDataType type, const void*, std::int64_t, cudaDataType, const void*,
    cudaDataType, std::size_t* device, std::size_t* host, std::int64_t batch) {
  const double each = symmetric_eigen_elements(static_cast<double>(n), has_vectors(mode));
  return answer(device, host, type, static_cast<double>(batch) * each);
}
cusolverStatus_t cusolverDnXsyevBatched(cusolverDnHandle_t handle, cusolverDnParams_t,
                                        cusolverEigMode_t mode, cublasFillMode_t, std::int64_t n,
                                        cudaDataType type, void*, std::int64_t, cudaDataType,
                                        void*, cudaDataType, void*, std::size_t, void*, std::size_t,
                                        int*, std::int64_t batch) {
  return note_symmetric(handle, mode, batched_method(static_cast<double>(n)), type, static_cast<double>(n),
                        static_cast<double>(batch));
}

cusolverStatus_t cusolverDnXgeev_bufferSize(cusolverDnHandle_t, cusolverDnParams_t,
                                            cusolverEigMode_t, cusolverEigMode_t, std::int64_t n,
                                            cudaDataType type, const void*, std::int64_t,
                                            cudaDataType, const void*, cudaDataType, const void*,
                                            std::int64_t, cudaDataType, const void*, std::int64_t,
                                            cudaDataType, std::size_t* device, std::size_t* host) {
  const auto size = static_cast<double>(n);
  return answer(device, host, type, eigen_elements(size), size * size);
}
cusolverStatus_t cusolverDnXgeev(cusolverDnHandle_t handle, cusolverDnParams_t, cusolverEigMode_t,
                                 cusolverEigMode_t mode, std::int64_t n, cudaDataType type, void*,
                                 std::int64_t, cudaDataType, void*, cudaDataType, void*,
                                 std::int64_t, cudaDataType, void*, std::int64_t, cudaDataType,
                                 void*, std::size_t, void*, std::size_t, int*) {
  const auto size = static_cast<double>(n);
  return note(handle, eigen_work(matrices_of(type, size, size), has_vectors(mode)));
}

}  // extern "C"
