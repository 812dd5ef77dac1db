#include "hooks/torch_startup.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

#include "allocator/base/export.h"
#include "hooks/ebbtide.h"

namespace ebbtide {

// One in the process, whichever adaptors are in it: both would say the same.
EBBTIDE_EXPORT inline std::atomic<bool> startup_has_complained{false};

namespace {

constexpr int kStrictExit = 2;

// A variable that concerns which adaptors are installed, not the engine: Python reads it likewise.
std::string variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

bool is_loaded(const std::string& library) {
  return ::dlopen(library.c_str(), RTLD_LAZY | RTLD_NOLOAD) != nullptr;
}

// In a Python process `import torch` starts Ebbtide. Before the import torch is not loaded; after
// it the interpreter runs. A program that merely embeds Python has torch before it has an
// interpreter.
bool program_brings_torch() {
  if (!is_loaded("libtorch_cpu.so")) return false;
  void* symbol = ::dlsym(RTLD_DEFAULT, "Py_IsInitialized");
  return symbol == nullptr || reinterpret_cast<int (*)()>(symbol)() == 0;
}

// As torch reads it: what follows the first entry that names no device is ignored.
bool are_devices_hidden() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr) return false;
  const std::string text = visible;
  const auto first = text.find_first_not_of(' ');
  if (first == std::string::npos) return true;
  const bool is_index = text[first] >= '0' && text[first] <= '9';
  return !is_index && text.compare(first, 4, "GPU-") != 0 && text.compare(first, 4, "MIG-") != 0;
}

// Asks NVML: the CUDA runtime would start the driver, and the program could not fork afterwards.
bool has_cuda_device() {
  if (!is_loaded("libc10_cuda.so") || are_devices_hidden()) return false;
  void* nvml = ::dlopen("libnvidia-ml.so.1", RTLD_LAZY);
  // Some devices have a driver but no NVML.
  if (nvml == nullptr) return ::dlopen("libcuda.so.1", RTLD_LAZY) != nullptr;
  const auto init = reinterpret_cast<int (*)()>(::dlsym(nvml, "nvmlInit_v2"));
  const auto count_devices =
      reinterpret_cast<int (*)(unsigned*)>(::dlsym(nvml, "nvmlDeviceGetCount_v2"));
  unsigned count = 0;
  if (init == nullptr || count_devices == nullptr || init() != 0) return false;
  return count_devices(&count) == 0 && count > 0;
}

Result<std::vector<std::string>> wanted_kinds() {
  const std::string chosen = variable("EBBTIDE_DEVICES");
  if (chosen.empty()) return std::vector<std::string>{has_cuda_device() ? "cuda" : "cpu"};
  std::vector<std::string> kinds;
  std::istringstream parts(chosen);
  for (std::string part; std::getline(parts, part, ',');) {
    part.erase(std::remove(part.begin(), part.end(), ' '), part.end());
    if (part != "cpu" && part != "cuda") {
      return Error{
          ErrorCode::kInvalidArgument,
          "EBBTIDE_DEVICES=" + chosen + " is not understood: allowed are cpu, cuda and cpu,cuda"};
    }
    kinds.push_back(part);
  }
  return kinds;
}

Status start(const StartupAdaptor& adaptor) {
  if (ebbtide_check_settings() != EBBTIDE_OK) {
    return Error{ErrorCode::kInvalidArgument, ebbtide_last_error()};
  }
  if (ebbtide_mode() == 0) return Nothing{};
  const Result<std::vector<std::string>> kinds = wanted_kinds();
  if (!kinds.ok()) return kinds.error();
  for (const std::string& kind : kinds.value()) {
    const std::string library = "libebbtide_torch_" + kind + ".so";
    if (is_loaded(library)) continue;
    const char* memory = kind == "cpu" ? "host memory" : "CUDA memory";
    return Error{ErrorCode::kUnsupported, std::string(memory) + " is to be planned here, but " +
                                              library + " is neither linked nor preloaded"};
  }
  if (std::find(kinds.value().begin(), kinds.value().end(), adaptor.kind) == kinds.value().end()) {
    return Nothing{};
  }
  const Status installed = adaptor.install();
  if (!installed.ok()) return installed;
  std::atexit([] { static_cast<void>(ebbtide_finish()); });
  // A dry run that ends the program after its last step calls no handlers at exit, but this.
  if (void* const at_end = dlsym(RTLD_DEFAULT, "ebbtide_dryrun_at_end")) {
    reinterpret_cast<void (*)(void (*)())>(at_end)([] { static_cast<void>(ebbtide_finish()); });
  }
  return Nothing{};
}

void complain(std::string reason) {
  reason = reason.substr(0, reason.find('\n'));
  const bool is_strict = variable("EBBTIDE_STRICT") == "1";
  if (!startup_has_complained.exchange(true)) {
    const char* level = is_strict ? "error" : "warning";
    const char* outcome = is_strict ? " (EBBTIDE_STRICT=1)" : "; training goes on without Ebbtide";
    std::fprintf(stderr, "ebbtide %s %s%s\n", level, reason.c_str(), outcome);
  }
  // Not exit(): other libraries are not initialised yet, and their exit handlers may not run.
  if (is_strict) ::_exit(kStrictExit);
}

}  // namespace

void start_torch_adaptor(const StartupAdaptor& adaptor) noexcept {
  try {
    // Cheap where Ebbtide is not wanted.
    const std::string mode = variable("EBBTIDE");
    if (mode.empty() || mode == "0" || !program_brings_torch()) return;
    const Status started = start(adaptor);
    if (!started.ok()) complain(started.error().message);
  } catch (const std::exception& error) {
    complain(error.what());
  }
}

}  // namespace ebbtide
