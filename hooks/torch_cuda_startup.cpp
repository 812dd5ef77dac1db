#include <c10/cuda/CUDAAllocatorConfig.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <cstdlib>
#include <string>

#include "hooks/settings.h"
#include "hooks/torch_adaptor.h"
#include "hooks/torch_startup.h"

namespace ebbtide {
namespace {

namespace native = c10::cuda::CUDACachingAllocator;

// torch reads the first of these that is set, and only that one.
std::string settings_of_user() {
  for (const char* name :
       {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF"}) {
    if (const char* text = std::getenv(name); text != nullptr) return text;
  }
  return "";
}

// Without them one permanent block can keep a huge segment from being given back. The user's own
// settings are repeated, because some torch versions reset what is left out.
void use_expandable_segments() {
  std::string settings = settings_of_user();
  if (settings.find("expandable_segments") != std::string::npos) return;
  if (!settings.empty() && settings.back() != ',') settings += ",";
  native::setAllocatorSettings(settings + "expandable_segments:True");
}

Status install_cuda_adaptor() {
  native::CUDAAllocator* upstream = native::allocator.load();
  const std::string backend = upstream == nullptr ? "missing" : upstream->name();
  if (backend != "native") {
    return Error{ErrorCode::kUnsupported, "the CUDA allocator backend is " + backend + " (" +
                                              settings_of_user() +
                                              "): Ebbtide works with backend:native only"};
  }
  if (ebbtide_mode() == static_cast<int>(Mode::kServe)) use_expandable_segments();
  if (ebbtide_torch_cuda_install() == EBBTIDE_OK) return Nothing{};
  return Error{ErrorCode::kUnsupported, "the CUDA adaptor could not be installed"};
}

__attribute__((constructor)) void start_with_program() { start_torch_adaptor({"cuda", &install_cuda_adaptor}); }

}  // namespace
}  // namespace ebbtide
