#include "hooks/torch_cuda_workspace.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace ebbtide {
namespace {

constexpr int kFrames = 20;  // from here to whoever makes a workspace: a dozen

// at::cuda::getCurrentCUDABlasHandle() and getCUDABlasLtWorkspace(), which make workspaces when they are called first on a
// stream. Looked up in the library that is loaded already, as find_backward_probe() does.
constexpr std::array<const char*, 2> kMakers{"_ZN2at4cuda24getCurrentCUDABlasHandleEv", "_ZN2at4cuda22getCUDABlasLtWorkspaceEv"};

// How large these are, by the environment's and torch's own settings.
constexpr std::array<const char*, 2> kSizes{"_ZN2at4cuda22getChosenWorkspaceSizeEv", "_ZN2at4cuda26getCUDABlasLtWorkspaceSizeEv"};
constexpr Bytes kGrain{512};  // of torch's requests

// Of a function's code. To ask the linker whose an address is takes as long as a library has symbols: so it is asked once.
struct Code {
  const char* begin = nullptr;
  const char* end = nullptr;
};

Code code_of(void* function) {
  Dl_info info{};
  void* entry = nullptr;
  if (function == nullptr || ::dladdr1(function, &info, &entry, RTLD_DL_SYMENT) == 0 || entry == nullptr) return {};
  const auto* begin = static_cast<const char*>(function);
  return {begin, begin + static_cast<const ElfW(Sym)*>(entry)->st_size};
}

void* find_in_torch(const char* name) {
  void* torch = ::dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  return torch == nullptr ? nullptr : ::dlsym(torch, name);
}

std::array<Code, kMakers.size()> find_makers() {
  std::array<Code, kMakers.size()> found;
  for (std::size_t i = 0; i < kMakers.size(); ++i) found[i] = code_of(find_in_torch(kMakers[i]));
  return found;
}

// Empty: torch does not say.
using Size = std::optional<Bytes>;

// torch 2.11 reads the environment again whenever it is asked.
Size ask_for_size(const char* getter) noexcept try {
  void* found = find_in_torch(getter);
  if (found == nullptr) return {};
  return align_up(Bytes{static_cast<std::int64_t>(reinterpret_cast<std::size_t (*)()>(found)())}, kGrain);
} catch (...) {
  return {};  // the default is a matter of the device, which may be lost
}

// Whether a workspace may be of this size, for all that is known. A walk up the stack takes longer than all else that torch does
// for a request.
bool is_of_workspace_size(Bytes size) noexcept {
  static const std::array<Size, kSizes.size()> sizes{ask_for_size(kSizes[0]), ask_for_size(kSizes[1])};
  const Bytes rounded = align_up(size, kGrain);
  return std::any_of(sizes.begin(), sizes.end(), [rounded](const Size& known) { return !known || *known == rounded; });
}

}  // namespace

bool is_for_workspace(Bytes size) noexcept {
  if (!is_of_workspace_size(size)) return false;
  static const std::array<Code, kMakers.size()> makers = find_makers();
  std::array<void*, kFrames> frames;
  const int count = ::backtrace(frames.data(), kFrames);
  return std::any_of(frames.begin(), frames.begin() + count, [](const void* frame) {
    const auto* address = static_cast<const char*>(frame);  // what a call returns to: behind it, within the function or at its end
    return std::any_of(makers.begin(), makers.end(), [=](const Code& maker) { return maker.begin < address && address <= maker.end; });
  });
}

}  // namespace ebbtide
