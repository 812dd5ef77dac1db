// What a cusolverDnHandle_t made here points to, and how the functions that get one end.
#pragma once

#include <cusolverDn.h>

#include "dryrun/core/factorisation.h"

struct cusolverDnContext {
  cudaStream_t stream = nullptr;
};

namespace ebbtide::dryrun {

// Matrices of a type that cuSOLVER is given.
Matrices matrices_of(cudaDataType type, double rows, double columns, double batch = 1);

inline bool has_vectors(cusolverEigMode_t mode) { return mode == CUSOLVER_EIG_MODE_VECTOR; }

// Charges the work. That it succeeded is written by the companion, where torch hands it out.
cusolverStatus_t note(cusolverDnHandle_t handle, const Work& work);

}  // namespace ebbtide::dryrun

// Functions that exist once for each type: its letter, what makes and what applies its orthogonal matrices,
// what its symmetric ones are called, its C type, that of its real numbers, and cuSOLVER's name of it.
#define EBBTIDE_EACH_TYPE(DEFINE)                                       \
  DEFINE(S, orgqr, ormqr, sy, float, float, CUDA_R_32F)                 \
  DEFINE(D, orgqr, ormqr, sy, double, double, CUDA_R_64F)               \
  DEFINE(C, ungqr, unmqr, he, cuComplex, float, CUDA_C_32F)             \
  DEFINE(Z, ungqr, unmqr, he, cuDoubleComplex, double, CUDA_C_64F)
