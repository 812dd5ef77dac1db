// How a matrix product is cut into tiles, and what of a device's time they leave unused.
#pragma once

#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

// `batch` products of (m x k) by (k x n); all 0: not known.
struct ProductShape {
  double m = 0, n = 0, k = 0, batch = 0;
};

// A way to cut a product.
struct Cut {
  double busy = 1;  // the device's operations in whole waves of whole tiles, over the product's
  double partial_bytes = 0;  // written and read again where a sum over k is taken in parts
};

// The way that takes the least time. `flops_per_second` and `bytes_per_second`: what is reached of
// the peaks; `multiprocessors`: of the device, 0 where that is not known (nothing is left unused).
EBBTIDE_DRYRUN_API Cut best_cut(const ProductShape& shape, int multiprocessors,
                                double flops_per_second, double bytes_per_second);

}  // namespace ebbtide::dryrun
