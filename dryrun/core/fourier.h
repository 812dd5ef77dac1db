// A Fourier transform as it is given to cuFFT: what it asks of a device, and the memory that it works in.
#pragma once

#include <vector>

#include "dryrun/core/export.h"
#include "dryrun/core/work.h"

namespace ebbtide::dryrun {

struct Transform {
  std::vector<double> lengths;  // of one transform's dimensions
  double batch = 1;
  double complex_bytes = 8;  // of one complex number
  NumberKind numbers = NumberKind::kFloat32;
  bool is_real = false;  // on one of its sides: half of it is enough
};

EBBTIDE_DRYRUN_API Work work_of(const Transform& transform);
EBBTIDE_DRYRUN_API double work_area_bytes(const Transform& transform);

}  // namespace ebbtide::dryrun
