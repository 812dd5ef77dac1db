#include "hooks/torch_cuda_workspace.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>

#include <algorithm>
#include <array>

namespace ebbtide {
namespace {

constexpr int kFrames = 20;  // from here to whoever makes a workspace: a dozen

// at::cuda::getCurrentCUDABlasHandle() and getCUDABlasLtWorkspace(), which make workspaces when they are called first on a
// stream. Looked up in the library that is loaded already, as find_backward_probe() does.
constexpr std::array<const char*, 2> kMakers{"_ZN2at4cuda24getCurrentCUDABlasHandleEv", "_ZN2at4cuda22getCUDABlasLtWorkspaceEv"};

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

std::array<Code, kMakers.size()> find_makers() {
  std::array<Code, kMakers.size()> found;
  void* torch = ::dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  for (std::size_t i = 0; torch != nullptr && i < kMakers.size(); ++i) found[i] = code_of(::dlsym(torch, kMakers[i]));
  return found;
}

}  // namespace

bool is_for_workspace() noexcept {
  static const std::array<Code, kMakers.size()> makers = find_makers();
  std::array<void*, kFrames> frames;
  const int count = ::backtrace(frames.data(), kFrames);
  return std::any_of(frames.begin(), frames.begin() + count, [](const void* frame) {
    const auto* address = static_cast<const char*>(frame);  // what a call returns to: behind it, within the function or at its end
    return std::any_of(makers.begin(), makers.end(), [=](const Code& maker) { return maker.begin < address && address <= maker.end; });
  });
}

}  // namespace ebbtide
