// What a cudnnHandle_t made here points to.
#pragma once

#include <cudnn_graph.h>

struct cudnnContext {
  cudaStream_t stream = nullptr;
};
