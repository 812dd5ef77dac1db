#include "dryrun/core/factorisation.h"

#include <algorithm>

namespace ebbtide::dryrun {

namespace {

// Note [Time of factorisations]
// Each column of a factorisation waits for the one before: a matrix takes a number of short kernels
// for each of its columns, and its operations at a small share of the peak on top. Matrices of a
// batch take these steps together. Both numbers are fitted to few published times of cuSOLVER
// through torch, in float32 unless said, and are good for a factor of two at best:
//
// Cholesky: 0.11, 0.38 and 1.95 ms for 128, 512 and 2048 columns, 22 ms for 64 matrices of 2048
// (github.com/pytorch/pytorch, pull request 173515). LU is taken to reach the same share; its pivots
// are looked for column by column.
// QR: 0.61, 1.55, 3.8 and 24 ms for R of 256, 512, 1024 and 4096 columns; Q takes another 0.15, 0.29
// and 0.67 ms of the first three (github.com/flagos-ai/FlagGems, pull request 5586).
// Symmetric eigenvalues, by reduction: 1.07, 1.8, 3.6 and 4.5 ms for 33, 64, 96 and 128 columns of float64
// on an RTX 4080, and 0.3, 0.62 and 1.65 ms for 128 at once of 8, 16 and 32 (pytorch, issue 175585; with
// CUDA 13 512 of 3 take 13 ms on a GH200, which is not modelled: issue 183806); by Jacobi's method 1.8 ms
// for 100 columns (issue 174674). Large ones reach less than 3 % of an H100's peak (H. Wang et al.,
// Extracting the Potential of Emerging Hardware Accelerators for Symmetric Eigenvalue Decomposition).
// Any eigenvalues: 0.36 ms for 3 columns on a GH200 (issue 183806); the share is assumed.
// Singular values, by Jacobi's method: 0.38, 0.48 and 0.59 ms for 8, 16 and 32 columns, 0.17, 0.25 and
// 0.3 for some of them at once (pytorch, pull request 88502), 5.4 ms for 900 x 100 on a V100, 9.4 by
// reduction and 0.28, of 300 at once, by the Gram matrix (issue 41306); complex128 on an A100, 400 and
// 1024 columns: 207 and 863 ms by Jacobi's method, 400 and 1200 by reduction: 48 and 270 ms
// (github.com/tensor4all/tenferro-rs, issues 1839 and 1849).
// Solving is assumed: to wait for every tenth column, and to reach twice what Cholesky does.
struct Pace {
  double steps;  // a column
  double share;
};
constexpr Pace kCholesky{0.3, 0.13}, kLu{1, 0.13}, kQr{1, 0.1}, kReflectors{0.26, 0.13};
constexpr Pace kSolve{0.1, 0.26};
constexpr Pace kSymmetric{12, 0.03}, kSymmetricJacobi{7, 0.03}, kSymmetricSmall{20, 0.03};
constexpr Pace kEigen{47, 0.01};
constexpr Pace kSingular{40, 0.05}, kSingularJacobi{15, 0.02}, kSingularSmall{4, 0.02};
constexpr Pace kSingularGram{20, 0.03};

const Pace& symmetric_pace(Method method) {
  if (method == Method::kSmall) return kSymmetricSmall;
  return method == Method::kJacobi ? kSymmetricJacobi : kSymmetric;
}

const Pace& singular_pace(Method method) {
  switch (method) {
    case Method::kJacobi:
      return kSingularJacobi;
    case Method::kSmall:
      return kSingularSmall;
    case Method::kGram:
      return kSingularGram;
    default:
      return kSingular;
  }
}

double element_bytes(const Matrices& matrices) {
  const double real = matrices.numbers == NumberKind::kFloat64 ? 8 : 4;
  return matrices.is_complex ? 2 * real : real;
}

// `flops` of one matrix of real numbers; each of them is read and written once.
Work work_of(const Matrices& matrices, const Pace& pace, double flops) {
  const double elements = matrices.rows * matrices.columns * matrices.batch;
  return {.flops = (matrices.is_complex ? 4 : 1) * flops * matrices.batch,
          .bytes = 2 * elements * element_bytes(matrices),
          .numbers = matrices.numbers,
          .share = pace.share,
          .steps = pace.steps * std::min(matrices.rows, matrices.columns)};
}

// LAPACK's count for `columns` reflectors of a matrix that has at least as many rows.
double qr_flops(double rows, double columns) {
  return 2 * rows * columns * columns - 2 * columns * columns * columns / 3;
}

double cube(double value) { return value * value * value; }

}  // namespace

Work cholesky_work(const Matrices& square) {
  return work_of(square, kCholesky, cube(square.columns) / 3);
}

Work lu_work(const Matrices& matrices) {
  const double least = std::min(matrices.rows, matrices.columns);
  const double most = std::max(matrices.rows, matrices.columns);
  return work_of(matrices, kLu, most * least * least - cube(least) / 3);
}

Work qr_work(const Matrices& matrices) {
  const double least = std::min(matrices.rows, matrices.columns);
  return work_of(matrices, kQr, qr_flops(std::max(matrices.rows, matrices.columns), least));
}

Work reflector_work(const Matrices& matrices, double reflectors) {
  // Each changes all columns, and one row less than the reflector before.
  const double rows = std::max(matrices.rows, reflectors);
  Work work = work_of(matrices, kReflectors,
                      4 * matrices.columns * reflectors * (rows - reflectors / 2));
  work.steps = kReflectors.steps * reflectors;
  return work;
}

Work solve_work(const Matrices& square, double right_sides, int factors) {
  const double n = square.columns;
  Work work = work_of(square, kSolve, factors * n * n * right_sides);
  work.steps *= factors;
  work.bytes = (n * n * factors / 2 + 2 * n * right_sides * factors) * square.batch * element_bytes(square);
  return work;
}

Work symmetric_eigen_work(const Matrices& square, Method method, bool has_vectors) {
  return work_of(square, symmetric_pace(method), (has_vectors ? 9 : 4.0 / 3) * cube(square.columns));
}

Work eigen_work(const Matrices& square, bool has_vectors) {
  return work_of(square, kEigen, (has_vectors ? 25 : 10) * cube(square.columns));
}

Work singular_work(const Matrices& matrices, Method method, bool has_vectors) {
  const double n = std::min(matrices.rows, matrices.columns);
  const double m = std::max(matrices.rows, matrices.columns);
  const double flops = has_vectors ? 14 * m * n * n + 8 * cube(n) : 4 * m * n * n - 4 * cube(n) / 3;
  return work_of(matrices, singular_pace(method), flops);
}

}  // namespace ebbtide::dryrun
