// Loads the torch companion, which computes integers for real, when torch begins to use the device.
//
// The companion links the installed torch, so it can only be loaded once torch is; every thread
// that works on a device passes through enter(), which switches the companion on for it.
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>

#include "dryrun/cudart/status.h"

namespace ebbtide::dryrun {

namespace {

using EnterThread = void (*)();
constexpr const char* kCompanion = "libebbtide_dryrun_torch.so";

// The companion beside the library that this code is in.
std::string companion_path() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&companion_path), &info) == 0) return kCompanion;
  const std::string self = info.dli_fname;
  return self.substr(0, self.rfind('/') + 1) + kCompanion;
}

bool is_torch_loaded() {
  void* torch = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  if (torch == nullptr) return false;
  dlclose(torch);
  return true;
}

EnterThread load_companion() {
  const std::string path = companion_path();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    std::fprintf(stderr,
                 "ebbtide dryrun: integer operators are not computed, the program may take other "
                 "ways than on a real device: %s\n",
                 dlerror());
    return nullptr;
  }
  return reinterpret_cast<EnterThread>(dlsym(library, "ebbtide_dryrun_enter_thread"));
}

}  // namespace

void enter() {
  static std::atomic<EnterThread> enter_thread{nullptr};
  static std::atomic<bool> is_tried{false};
  if (!is_tried.load(std::memory_order_acquire)) {
    // A program may use the runtime before torch is there.
    if (!is_torch_loaded()) return;
    static std::once_flag once;
    std::call_once(once, [] {
      enter_thread = load_companion();
      is_tried.store(true, std::memory_order_release);
    });
  }
  if (const EnterThread start = enter_thread.load(std::memory_order_relaxed)) start();
}

}  // namespace ebbtide::dryrun
