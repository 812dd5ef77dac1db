// How the engine calls torch's streams.
#pragma once

#include <c10/cuda/CUDAStream.h>

#include <cstdint>

#include "allocator/device/stream_fences.h"

namespace ebbtide {

inline StreamId id_of(c10::cuda::CUDAStream stream) {
  if (stream.id() == 0) return {};  // the default stream; torch would say so, too, and takes a while
  return {reinterpret_cast<std::uint64_t>(stream.stream())};
}

// The default stream, which nearly all programs use, is 0 to torch and to CUDA: to ask for CUDA's handle is a call more.
inline StreamId current_stream(c10::DeviceIndex device) {
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device);
  if (stream.id() == 0) [[likely]] return {};
  return id_of(stream);
}

}  // namespace ebbtide
