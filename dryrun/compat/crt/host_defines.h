// What the CUDA headers need from `crt/host_defines.h` when a host compiler reads them. The torch
// wheels' CUDA headers come without the `crt` folder, and a toolkit must not be needed for
// building.
#pragma once

#define CUDARTAPI
#define CUDARTAPI_CDECL
#define __host__
#define __device__
#define __global__
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __align__(n) __attribute__((aligned(n)))
#undef __forceinline__
#define __forceinline__ __inline__ __attribute__((always_inline))
