// What dense linear algebra beyond products asks of a device: factorisations, and solving with them.
#pragma once

#include "dryrun/core/export.h"
#include "dryrun/core/work.h"

namespace ebbtide::dryrun {

// `batch` matrices of one shape that one call is given.
struct Matrices {
  double rows = 0, columns = 0, batch = 1;
  NumberKind numbers = NumberKind::kFloat32;
  bool is_complex = false;
};

// How singular values and eigenvalues are found.
enum class Method {
  kReduction,  // to a band of two or three diagonals
  kJacobi,     // turning pairs of rows and columns until they are orthogonal
  kSmall,      // all of a matrix of up to 32 columns in one block of threads, many at once
  kGram,       // of the matrices' products with themselves: many tall ones at once
};

// Operations are LAPACK's counts; the rest is Note [Time of factorisations] (factorisation.cpp).
EBBTIDE_DRYRUN_API Work cholesky_work(const Matrices& square);
EBBTIDE_DRYRUN_API Work lu_work(const Matrices& matrices);
EBBTIDE_DRYRUN_API Work qr_work(const Matrices& matrices);
// A product of `reflectors` Householder reflectors, applied to the matrices (or to parts of the identity).
EBBTIDE_DRYRUN_API Work reflector_work(const Matrices& matrices, double reflectors);
// `factors` triangular ones, one after the other, with all right sides at once.
EBBTIDE_DRYRUN_API Work solve_work(const Matrices& square, double right_sides, int factors);
EBBTIDE_DRYRUN_API Work symmetric_eigen_work(const Matrices& square, Method method, bool has_vectors);
EBBTIDE_DRYRUN_API Work eigen_work(const Matrices& square, bool has_vectors);
EBBTIDE_DRYRUN_API Work singular_work(const Matrices& matrices, Method method, bool has_vectors);

}  // namespace ebbtide::dryrun
