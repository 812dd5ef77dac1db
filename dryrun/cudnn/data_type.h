// How many bytes a number of cuDNN's takes, and which numbers its products are made of.
#pragma once

#include <cudnn_graph.h>

#include <cstdint>

#include "dryrun/core/device_model.h"

namespace ebbtide::dryrun {

inline std::int64_t bytes_of_number(int data_type) {
  switch (data_type) {
    case CUDNN_DATA_DOUBLE:
    case CUDNN_DATA_INT64:
      return 8;
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16:
      return 2;
    case CUDNN_DATA_FP8_E4M3:
    case CUDNN_DATA_FP8_E5M2:
    case CUDNN_DATA_INT8:
    case CUDNN_DATA_UINT8:
      return 1;
    default:
      return 4;
  }
}

inline NumberKind number_kind(int data_type, bool uses_tensor_float) {
  switch (data_type) {
    case CUDNN_DATA_DOUBLE:
      return NumberKind::kFloat64;
    case CUDNN_DATA_HALF:
      return NumberKind::kFloat16;
    case CUDNN_DATA_BFLOAT16:
      return NumberKind::kBFloat16;
    default:
      return uses_tensor_float ? NumberKind::kTensorFloat32 : NumberKind::kFloat32;
  }
}

}  // namespace ebbtide::dryrun
