// Memory and events of other processes. The bytes of an allocation that is shared are a file's from then on, which the other
// process finds by this one's number: it must be alive when it is opened, as on a real device.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "dryrun/cudart/status.h"

using namespace ebbtide::dryrun;

namespace {

constexpr std::uint64_t kMemoryMagic = 0x6d656d6f7279ULL;
constexpr std::uint64_t kEventMagic = 0x6576656e74ULL;

// What the runtime's 64 bytes hold here.
struct Handle {
  std::uint64_t magic;
  std::int64_t process;
  std::int64_t descriptor;
  std::uint64_t file;
};
static_assert(sizeof(Handle) <= CUDA_IPC_HANDLE_SIZE);

// The file's number; 0: it is none.
std::uint64_t number_of(int descriptor) {
  struct stat facts {};
  return ::fstat(descriptor, &facts) == 0 ? static_cast<std::uint64_t>(facts.st_ino) : 0;
}

template <typename Opaque>
Handle read(const Opaque& opaque) {
  Handle handle{};
  std::memcpy(&handle, &opaque, sizeof handle);
  return handle;
}

template <typename Opaque>
void write(Opaque& opaque, const Handle& handle) {
  std::memset(&opaque, 0, sizeof opaque);
  std::memcpy(&opaque, &handle, sizeof handle);
}

}  // namespace

extern "C" {

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* pointer) {
  const int descriptor = Simulator::instance().share(pointer);
  if (descriptor < 0) return note(cudaErrorInvalidValue);
  write(*handle, {kMemoryMagic, ::getpid(), descriptor, number_of(descriptor)});
  return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void** pointer, cudaIpcMemHandle_t opaque, unsigned int) {
  *pointer = nullptr;
  const Handle handle = read(opaque);
  if (handle.magic != kMemoryMagic) return note(cudaErrorInvalidValue);
  if (handle.process == ::getpid()) return note(cudaErrorDeviceUninitialized);  // CUDA's own answer to that
  enter();
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%lld/fd/%lld", static_cast<long long>(handle.process),
                static_cast<long long>(handle.descriptor));
  SharedFile file(::open(path, O_RDWR | O_CLOEXEC));
  if (!file.is_open() || number_of(file.descriptor()) != handle.file) return note(cudaErrorInvalidResourceHandle);
  const std::uintptr_t address = Simulator::instance().open_shared(current_device(), std::move(file));
  if (address == 0) return note(cudaErrorInvalidResourceHandle);
  *pointer = to_pointer(address);
  return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void* pointer) {
  return Simulator::instance().close_shared(to_address(pointer)) ? cudaSuccess : note(cudaErrorInvalidValue);
}

// Virtual time is each process's own: an event of another one has happened when it is asked for.
cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t* handle, cudaEvent_t event) {
  const unsigned int flags = reinterpret_cast<const Event*>(event)->flags;
  const unsigned int needed = cudaEventInterprocess | cudaEventDisableTiming;
  if ((flags & needed) != needed) return note(cudaErrorInvalidResourceHandle);
  write(*handle, {kEventMagic, ::getpid(), 0, 0});
  return cudaSuccess;
}

cudaError_t cudaIpcOpenEventHandle(cudaEvent_t* event, cudaIpcEventHandle_t opaque) {
  const Handle handle = read(opaque);
  if (handle.magic != kEventMagic) return note(cudaErrorInvalidValue);
  if (handle.process == ::getpid()) return note(cudaErrorDeviceUninitialized);
  *event = reinterpret_cast<cudaEvent_t>(new Event{{}, {}, false, cudaEventInterprocess | cudaEventDisableTiming});
  return cudaSuccess;
}

}  // extern "C"
