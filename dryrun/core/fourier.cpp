#include "dryrun/core/fourier.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace ebbtide::dryrun {

namespace {

// Note [Kernels of a Fourier transform]
// A kernel transforms one dimension, reads all and writes all. Lengths that do not fit into a block's
// shared memory take two (three beyond the square of that). A length with a prime factor of 128 or
// more is made a convolution (Bluestein), a power of two of at least twice the length: transformed,
// multiplied, transformed back (cuFFT's guide, "Accuracy and Performance"). That a single kernel does
// up to 8192 numbers is assumed, as is that there is no work area where a single kernel does it all.
// Else it is one copy of what is transformed: 8 bytes a number for 100 x 100 to 100 x 1500 of
// complex64 (github.com/arrayfire/arrayfire, issue 1443).
constexpr double kMostInKernel = 8192;
constexpr std::int64_t kMostPrime = 127;

bool is_bluestein(double length) {
  auto rest = static_cast<std::int64_t>(length);
  for (std::int64_t prime = 2; prime <= kMostPrime && rest > 1; ++prime) {
    while (rest % prime == 0) rest /= prime;
  }
  return rest > 1;
}

// What one dimension becomes.
struct Dimension {
  double length = 1;  // that is transformed
  double kernels = 1;
  double times = 1;  // that it is transformed
};

Dimension dimension_of(double length) {
  Dimension dimension{.length = length};
  if (is_bluestein(length)) {
    dimension.length = std::exp2(std::ceil(std::log2(2 * length - 1)));
    dimension.times = 2;
  }
  const double kernels = std::ceil(std::log2(dimension.length) / std::log2(kMostInKernel));
  dimension.kernels = dimension.times * std::max(1.0, kernels);
  return dimension;
}

// Complex numbers of all of the batch.
double points_of(const Transform& transform) {
  double points = transform.batch * (transform.is_real ? 0.5 : 1);
  for (const double length : transform.lengths) points *= length;
  return points;
}

}  // namespace

Work work_of(const Transform& transform) {
  const double points = points_of(transform);
  Work work{.numbers = transform.numbers, .launches = 0};
  for (const double length : transform.lengths) {
    const Dimension dimension = dimension_of(length);
    const double padded = points * dimension.length / length;
    work.flops += 5 * padded * std::log2(dimension.length) * dimension.times;
    work.bytes += 2 * padded * transform.complex_bytes * dimension.kernels;
    work.launches += static_cast<int>(dimension.kernels);
  }
  return work;
}

double work_area_bytes(const Transform& transform) {
  double kernels = 0, largest = 1;
  for (const double length : transform.lengths) {
    const Dimension dimension = dimension_of(length);
    kernels += dimension.kernels;
    largest = std::max(largest, dimension.length / length);
  }
  if (kernels <= 1) return 0;
  return std::ceil(points_of(transform) * largest * transform.complex_bytes);
}

}  // namespace ebbtide::dryrun
