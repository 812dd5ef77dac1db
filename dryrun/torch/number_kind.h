// The kind of numbers that a tensor's products are made of.
#pragma once

#include <c10/core/ScalarType.h>

#include "dryrun/core/device_model.h"

namespace ebbtide::dryrun {

inline NumberKind numbers_of(c10::ScalarType type) {
  switch (type) {
    case c10::kDouble:
      return NumberKind::kFloat64;
    case c10::kHalf:
      return NumberKind::kFloat16;
    case c10::kBFloat16:
      return NumberKind::kBFloat16;
    case c10::kFloat8_e4m3fn:
    case c10::kFloat8_e5m2:
      return NumberKind::kFloat8;
    default:
      return NumberKind::kFloat32;
  }
}

}  // namespace ebbtide::dryrun
