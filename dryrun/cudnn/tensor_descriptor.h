// What a cudnnTensorDescriptor_t made here points to.
#pragma once

#include <cudnn.h>

#include <vector>

struct cudnnTensorStruct {
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  std::vector<int> sizes, strides;
};
