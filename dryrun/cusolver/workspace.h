// The memory that cuSOLVER's functions work in, in elements of their type.
#pragma once

#include <algorithm>

namespace ebbtide::dryrun {

// Note [Workspaces of cuSOLVER]
// Its sizes are not documented; torch allocates what it is told here. Only one is known: of Jacobi's method
// for batches, from sizes that were printed (github.com/cupy/cupy, issue 7261). Divide and conquer needs three
// matrices: its sizes overflow 32 bits from about 25000 columns on (github.com/NVIDIA/CUDALibrarySamples, issue
// 246); LAPACK's needs two. The rest is assumed: LAPACK's optimal sizes with blocks of 64 columns, a copy
// of the matrix where Jacobi's method may not change it, and three matrices for any eigenvalues.
inline constexpr double kBlock = 64;

// Factorisations and reflectors: a block of columns, as long as the matrix's longer side.
inline double block_columns(double longer) { return std::min(kBlock, longer) * longer; }

inline double symmetric_eigen_elements(double n, bool has_vectors) {
  return block_columns(n) + (has_vectors ? 3 * n * n : 0);
}
inline double symmetric_jacobi_elements(double n) { return n * n + block_columns(n); }
inline double batched_jacobi_elements(double n, double batch) {
  const double padded = n > 32 ? n : 32;
  return batch * (padded * padded + (n + 1) * (n + 1)) + 1028;
}
inline double eigen_elements(double n) { return 3 * n * n + block_columns(n); }

inline double singular_elements(double m, double n) { return n * n + block_columns(m + n); }
inline double singular_jacobi_elements(double m, double n) { return m * n + n * n + block_columns(m + n); }
inline double singular_batched_elements(double m, double n, double batch) {
  return batch * (m * n + n * n) + block_columns(m + n);
}

}  // namespace ebbtide::dryrun
