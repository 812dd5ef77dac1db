// How the functions that say how much memory another one needs answer.
#pragma once

#include <cusolverDn.h>

#include <climits>
#include <cstddef>

namespace ebbtide::dryrun {

// In elements, an int as these functions have it. Refuses what is no int, as cuSOLVER does.
inline cusolverStatus_t answer(int* size, double elements) {
  if (elements > INT_MAX) return CUSOLVER_STATUS_INVALID_VALUE;
  *size = static_cast<int>(elements);
  return CUSOLVER_STATUS_SUCCESS;
}

inline double bytes_of_element(cudaDataType type) {
  return type == CUDA_C_64F ? 16 : type == CUDA_R_32F ? 4 : 8;
}

// In bytes, of the device and of the host.
inline cusolverStatus_t answer(std::size_t* device, std::size_t* host, cudaDataType type,
                               double elements, double host_elements = 0) {
  *device = static_cast<std::size_t>(elements * bytes_of_element(type));
  *host = static_cast<std::size_t>(host_elements * bytes_of_element(type));
  return CUSOLVER_STATUS_SUCCESS;
}

}  // namespace ebbtide::dryrun
