#include "hooks/torch_cuda_workspace.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace ebbtide {
namespace {

constexpr int kFrames = 20;  // from here to whoever makes a workspace: a dozen

// at::cuda::getCurrentCUDABlasHandle() and getCUDABlasLtWorkspace(), which make workspaces when they are called first on a
// stream. Looked up in the library that is loaded already, as find_backward_probe() does.
constexpr std::array<const char*, 2> kMakers{"_ZN2at4cuda24getCurrentCUDABlasHandleEv", "_ZN2at4cuda22getCUDABlasLtWorkspaceEv"};

// How large these are, by the environment's and torch's own settings: each asked anew, as programs may change them.
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

// Whether a workspace may be of this size. A walk up the stack takes longer than all else that torch does for a request.
bool is_of_workspace_size(Bytes size) {
  using Getter = std::size_t (*)();
  static const std::array<Getter, kSizes.size()> getters{reinterpret_cast<Getter>(find_in_torch(kSizes[0])),
                                                         reinterpret_cast<Getter>(find_in_torch(kSizes[1]))};
  return std::any_of(getters.begin(), getters.end(), [size](Getter getter) {
    return getter == nullptr || align_up(Bytes{static_cast<std::int64_t>(getter())}, kGrain) == align_up(size, kGrain);
  });
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
