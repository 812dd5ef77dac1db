// The driver's virtual memory calls.
#include <fcntl.h>

#include <algorithm>
#include <cstring>

#include "dryrun/core/faults.h"
#include "dryrun/driver/status.h"

using namespace ebbtide;
using namespace ebbtide::dryrun;

namespace {

bool is_multiple(std::size_t size) {
  return size > 0 && size % static_cast<std::size_t>(kGranularity.value) == 0;
}

CUresult result_of(MapStatus status, const char* function) {
  switch (status) {
    case MapStatus::kOk:
      return CUDA_SUCCESS;
    case MapStatus::kAlreadyMapped:
      // A real device allows one handle at two places; the simulation does not alias memory.
      report_unimplemented((std::string(function) + " of memory that is mapped already").c_str());
      return CUDA_ERROR_NOT_SUPPORTED;
    case MapStatus::kNoSuchHandle:
    case MapStatus::kOutsideReservation:
    case MapStatus::kNotMapped:
      return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_ERROR_UNKNOWN;
}

}  // namespace

extern "C" {

CUresult cuMemGetAllocationGranularity(std::size_t* granularity, const CUmemAllocationProp*,
                                       CUmemAllocationGranularity_flags) {
  *granularity = static_cast<std::size_t>(kGranularity.value);
  return CUDA_SUCCESS;
}

// The address hint may be ignored, as the driver may.
CUresult cuMemAddressReserve(CUdeviceptr* pointer, std::size_t size, std::size_t alignment,
                             CUdeviceptr, unsigned long long) {
  if (!is_multiple(size)) return CUDA_ERROR_INVALID_VALUE;
  *pointer = Simulator::instance().reserve(current_device(), bytes_of(size), bytes_of(alignment));
  return *pointer == 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemAddressFree(CUdeviceptr pointer, std::size_t) {
  return Simulator::instance().unreserve(pointer) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, std::size_t size,
                     const CUmemAllocationProp* properties, unsigned long long) {
  const bool on_device = properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
  if (!on_device || !is_multiple(size) || !is_device(properties->location.id)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // As a driver without the service for it does; torch then asks for file descriptors.
  if ((properties->requestedHandleTypes & CU_MEM_HANDLE_TYPE_FABRIC) != 0) return CUDA_ERROR_NOT_PERMITTED;
  if (is_made_to_fail(FallibleCall::kAllocation)) return CUDA_ERROR_OUT_OF_MEMORY;
  *handle = Simulator::instance().create_physical(properties->location.id, bytes_of(size));
  return *handle == 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  return Simulator::instance().release_physical(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* address) {
  *handle = Simulator::instance().retain_physical(to_address(address));
  return *handle == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties,
                                                CUmemGenericAllocationHandle handle) {
  const int device = Simulator::device_of_handle(handle);
  if (!is_device(device)) return CUDA_ERROR_INVALID_VALUE;
  std::memset(properties, 0, sizeof *properties);
  properties->type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties->location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties->location.id = device;
  return CUDA_SUCCESS;
}

// To other processes: by a file's descriptor, as torch's expandable segments ask for.
CUresult cuMemExportToShareableHandle(void* shareable, CUmemGenericAllocationHandle handle, CUmemAllocationHandleType type,
                                      unsigned long long) {
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  const int shared = Simulator::instance().share_physical(handle);
  const int descriptor = shared < 0 ? -1 : ::fcntl(shared, F_DUPFD_CLOEXEC, 0);
  if (descriptor < 0) return CUDA_ERROR_INVALID_VALUE;
  *static_cast<int*>(shareable) = descriptor;  // the caller's
  return CUDA_SUCCESS;
}
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* handle, void* shareable, CUmemAllocationHandleType type) {
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  const auto descriptor = static_cast<int>(to_address(shareable));
  SharedFile file(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
  *handle = file.is_open() ? Simulator::instance().adopt_physical(current_device(), std::move(file)) : 0;
  return *handle == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr pointer, std::size_t size, std::size_t offset,
                  CUmemGenericAllocationHandle handle, unsigned long long) {
  if (!is_multiple(size) || offset != 0) return CUDA_ERROR_INVALID_VALUE;
  return result_of(Simulator::instance().map(pointer, bytes_of(size), handle), "cuMemMap");
}
CUresult cuMemUnmap(CUdeviceptr pointer, std::size_t size) {
  return result_of(Simulator::instance().unmap(pointer, bytes_of(size)), "cuMemUnmap");
}
CUresult cuMemSetAccess(CUdeviceptr pointer, std::size_t, const CUmemAccessDesc*, std::size_t) {
  const PointerFacts facts = Simulator::instance().facts(to_pointer(pointer));
  return facts.kind == MemoryKind::kDevice ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetInfo(std::size_t* available, std::size_t* total) {
  const DeviceUse use = Simulator::instance().use(current_device());
  *available = static_cast<std::size_t>((use.capacity - use.used).value);
  *total = static_cast<std::size_t>(use.capacity.value);
  return CUDA_SUCCESS;
}
CUresult cuMemGetAddressRange(CUdeviceptr* begin, std::size_t* size, CUdeviceptr pointer) {
  const PointerFacts facts = Simulator::instance().facts(to_pointer(pointer));
  if (facts.kind != MemoryKind::kDevice) return CUDA_ERROR_INVALID_VALUE;
  if (begin != nullptr) *begin = facts.begin;
  if (size != nullptr) *size = static_cast<std::size_t>(facts.size.value);
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr pointer) {
  const PointerFacts facts = Simulator::instance().facts(to_pointer(pointer));
  const bool on_device = facts.kind == MemoryKind::kDevice;
  if (facts.kind == MemoryKind::kUnregistered) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned int*>(value) = on_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(value) = facts.device;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *static_cast<CUdeviceptr*>(value) = pointer;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      *static_cast<CUdeviceptr*>(value) = facts.begin;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *static_cast<std::size_t*>(value) = static_cast<std::size_t>(facts.size.value);
      return CUDA_SUCCESS;
    default:
      report_unimplemented(("cuPointerGetAttribute(" + std::to_string(attribute) + ")").c_str());
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

}  // extern "C"
