// The CUDA runtime's functions that we call, looked up in the process: no toolkit is needed to
// build.
#pragma once

#include <cstddef>

#include "allocator/base/result.h"

namespace ebbtide {

// The runtime that torch has loaded (or a stand-in that was loaded before it). Types are the
// runtime's own, written out: cudaError_t is an int, streams and events are pointers.
struct CudaRuntime {
  using Status = int;    // cudaError_t
  using Stream = void*;  // cudaStream_t
  using Event = void*;   // cudaEvent_t

  static constexpr Status kSuccess = 0;
  static constexpr Status kOutOfMemory = 2;
  static constexpr Status kNotReady = 600;
  static constexpr unsigned int kStreamNonBlocking = 1;
  static constexpr unsigned int kHostRegisterPortable = 1;
  static constexpr int kMemcpyDefault = 4;  // the direction follows from the addresses

  Status (*get_device)(int* device);
  Status (*set_device)(int device);
  Status (*get_device_count)(int* count);
  Status (*device_get_pci_bus_id)(char* text, int capacity, int device);
  Status (*stream_create_with_flags)(Stream* stream, unsigned int flags);
  Status (*stream_destroy)(Stream stream);
  Status (*stream_synchronize)(Stream stream);
  Status (*stream_wait_event)(Stream stream, Event event, unsigned int flags);
  Status (*event_create)(Event* event);
  Status (*event_destroy)(Event event);
  Status (*event_record)(Event event, Stream stream);
  Status (*event_query)(Event event);
  Status (*event_elapsed_time)(float* milliseconds, Event start, Event end);
  Status (*memcpy_async)(void* target, const void* source, std::size_t bytes, int kind,
                         Stream stream);
  Status (*host_register)(void* place, std::size_t bytes, unsigned int flags);
  Status (*host_unregister)(void* place);
  Status (*get_last_error)();
  const char* (*get_error_string)(Status status);

  // Looked up once per process, when it first succeeds. kUnsupported when no runtime is loaded, or
  // one that lacks a function, which is named.
  static Result<const CudaRuntime*> find();
};

}  // namespace ebbtide
