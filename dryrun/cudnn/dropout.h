// What a cudnnDropoutDescriptor_t made here points to.
#pragma once

#include <cudnn.h>

struct cudnnDropoutStruct {
  float share = 0;  // of the numbers that are left out
};
