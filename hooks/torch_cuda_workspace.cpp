#include "hooks/torch_cuda_workspace.h"

#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>
#include <array>

namespace ebbtide {
namespace {

constexpr int kFrames = 20;  // from here to whoever makes a workspace: a dozen

// at::cuda::getCurrentCUDABlasHandle() and getCUDABlasLtWorkspace(), which make workspaces when they are called first on a
// stream. Looked up in the library that is loaded already, as find_backward_probe() does.
constexpr std::array<const char*, 2> kMakers{"_ZN2at4cuda24getCurrentCUDABlasHandleEv", "_ZN2at4cuda22getCUDABlasLtWorkspaceEv"};

std::array<void*, kMakers.size()> find_makers() {
  std::array<void*, kMakers.size()> found{};
  void* torch = ::dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  for (std::size_t i = 0; torch != nullptr && i < kMakers.size(); ++i) found[i] = ::dlsym(torch, kMakers[i]);
  return found;
}

}  // namespace

bool is_for_workspace() noexcept {
  static const std::array<void*, kMakers.size()> makers = find_makers();
  std::array<void*, kFrames> frames;
  const int count = ::backtrace(frames.data(), kFrames);
  return std::any_of(frames.begin(), frames.begin() + count, [](void* address) {
    Dl_info info{};
    // What it returns to may be the next function's first instruction.
    if (::dladdr(static_cast<char*>(address) - 1, &info) == 0 || info.dli_saddr == nullptr) return false;
    return std::find(makers.begin(), makers.end(), info.dli_saddr) != makers.end();
  });
}

}  // namespace ebbtide
