// Device and pinned host memory.
#include <cstring>

#include "dryrun/core/faults.h"
#include "dryrun/cudart/status.h"

using namespace ebbtide;
using namespace ebbtide::dryrun;

namespace {

cudaError_t allocate(void** pointer, std::size_t size) {
  *pointer = nullptr;
  if (size == 0) return cudaSuccess;
  Simulator& simulator = Simulator::instance();
  if (simulator.device_count() == 0) return note(cudaErrorNoDevice);
  enter();
  if (const cudaError_t error = do_unsafe(); error != cudaSuccess) return error;
  if (is_made_to_fail(FallibleCall::kAllocation)) return note(cudaErrorMemoryAllocation);
  const std::uintptr_t address =
      simulator.allocate(current_device(), Bytes{static_cast<std::int64_t>(size)});
  if (address == 0) return note(cudaErrorMemoryAllocation);
  *pointer = to_pointer(address);
  return cudaSuccess;
}

cudaError_t deallocate(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  return Simulator::instance().deallocate(to_address(pointer)) ? cudaSuccess
                                                               : note(cudaErrorInvalidValue);
}

// cudaFree waits for the device.
cudaError_t deallocate_when_idle(void* pointer) {
  if (const cudaError_t error = do_unsafe(); error != cudaSuccess) return error;
  if (pointer != nullptr && is_device(current_device())) {
    timeline().hold_host(timeline().end_of_device(current_device()));
  }
  return deallocate(pointer);
}

cudaError_t copy(void* target, const void* source, std::size_t size, cudaStream_t stream,
                 bool blocks = false) {
  enter();
  if (const cudaError_t error = blocks ? do_unsafe() : check_capture(stream); error != cudaSuccess) return error;
  queue_copy(stream, target, source, size, blocks);
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** pointer, std::size_t size) { return allocate(pointer, size); }
cudaError_t cudaMallocAsync(void** pointer, std::size_t size, cudaStream_t) {
  return allocate(pointer, size);
}
cudaError_t cudaFree(void* pointer) { return deallocate_when_idle(pointer); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return deallocate(pointer); }

cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total) {
  if (!is_device(current_device())) return note(cudaErrorNoDevice);
  const DeviceUse use = Simulator::instance().use(current_device());
  *available = static_cast<std::size_t>((use.capacity - use.used).value);
  *total = static_cast<std::size_t>(use.capacity.value);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t size, unsigned int) {
  *pointer = nullptr;
  if (const cudaError_t error = do_unsafe(); error != cudaSuccess) return error;
  const bool is_granted = size > 0 && !is_made_to_fail(FallibleCall::kHostRegistration) && Simulator::instance().can_pin(size);
  *pointer = is_granted ? Simulator::instance().allocate_pinned(size) : nullptr;
  return *pointer != nullptr || size == 0 ? cudaSuccess : note(cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void** pointer, std::size_t size) {
  return cudaHostAlloc(pointer, size, 0);
}

cudaError_t cudaFreeHost(void* pointer) {
  if (pointer == nullptr || Simulator::instance().deallocate_pinned(pointer)) return cudaSuccess;
  return note(cudaErrorInvalidValue);
}

cudaError_t cudaHostRegister(void* pointer, std::size_t size, unsigned int) {
  if (const cudaError_t error = do_unsafe(); error != cudaSuccess) return error;
  if (is_made_to_fail(FallibleCall::kHostRegistration) || !Simulator::instance().can_pin(size)) {
    return note(cudaErrorMemoryAllocation);
  }
  return Simulator::instance().register_host(pointer, size)
             ? cudaSuccess
             : note(cudaErrorHostMemoryAlreadyRegistered);
}

cudaError_t cudaHostUnregister(void* pointer) {
  return Simulator::instance().unregister_host(pointer) ? cudaSuccess
                                                        : note(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned int) {
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  std::memset(attributes, 0, sizeof *attributes);
  const PointerFacts facts = Simulator::instance().facts(pointer);
  void* plain = to_pointer(to_address(pointer));
  attributes->device = facts.device;
  attributes->type = cudaMemoryTypeUnregistered;
  if (facts.kind == MemoryKind::kUnregistered) return cudaSuccess;
  attributes->devicePointer = plain;
  attributes->type = cudaMemoryTypeDevice;
  if (facts.kind == MemoryKind::kPinned) {
    attributes->type = cudaMemoryTypeHost;
    attributes->hostPointer = plain;
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* target, const void* source, std::size_t size, cudaMemcpyKind) {
  ++Simulator::instance().counters().stream_synchronizations;
  return copy(target, source, size, nullptr, /*blocks=*/true);
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t size, cudaMemcpyKind,
                            cudaStream_t stream) {
  if (is_made_to_fail(FallibleCall::kCopy)) return note(cudaErrorUnknown);
  return copy(target, source, size, stream);
}
cudaError_t cudaMemcpyPeer(void* target, int, const void* source, int, std::size_t size) {
  return copy(target, source, size, nullptr, /*blocks=*/true);
}
cudaError_t cudaMemcpyPeerAsync(void* target, int, const void* source, int, std::size_t size,
                                cudaStream_t stream) {
  return copy(target, source, size, stream);
}

cudaError_t cudaMemcpy2DAsync(void* target, std::size_t target_pitch, const void* source,
                              std::size_t source_pitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind, cudaStream_t stream) {
  if (const cudaError_t error = check_capture(stream); error != cudaSuccess) return error;
  queue_copy(stream, {target, source, target_pitch, source_pitch, width, height});
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* target, int value, std::size_t size, cudaStream_t stream) {
  if (const cudaError_t error = check_capture(stream); error != cudaSuccess) return error;
  queue_fill(stream, target, value, size);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* target, int value, std::size_t size) {
  return cudaMemsetAsync(target, value, size, nullptr);
}

// Memory pools: everything comes from the device at once, and goes back at once.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  static int pools[64];
  if (!is_device(device)) return note(cudaErrorInvalidDevice);
  *pool = reinterpret_cast<cudaMemPool_t>(&pools[device]);
  return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  const DeviceUse use = Simulator::instance().use(current_device());
  switch (attribute) {
    case cudaMemPoolAttrReservedMemCurrent:
    case cudaMemPoolAttrUsedMemCurrent:
      *static_cast<std::uint64_t*>(value) = static_cast<std::uint64_t>(use.used.value);
      return cudaSuccess;
    case cudaMemPoolAttrReservedMemHigh:
    case cudaMemPoolAttrUsedMemHigh:
      *static_cast<std::uint64_t*>(value) = static_cast<std::uint64_t>(use.peak.value);
      return cudaSuccess;
    default:
      report_unimplemented("cudaMemPoolGetAttribute");
      return note(cudaErrorNotSupported);
  }
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t, const cudaMemAccessDesc*, std::size_t) {
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }

}  // extern "C"
