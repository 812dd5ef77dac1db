#include "profiler/cupti/cupti_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>

namespace ebbtide {
namespace {

// By major version of CUDA. 11 carried the year of its release.
constexpr std::array kSonames{"libcupti.so.13", "libcupti.so.12", "libcupti.so.11.8", "libcupti.so"};

void* open_any() {
  for (const int mode : {RTLD_NOLOAD | RTLD_LAZY, RTLD_LAZY | RTLD_LOCAL}) {
    for (const char* soname : kSonames) {
      if (void* library = ::dlopen(soname, mode); library != nullptr) return library;
    }
  }
  return nullptr;
}

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

}  // namespace

Result<CuptiLibrary> CuptiLibrary::load(const std::string& path) {
  void* library = path.empty() ? open_any() : ::dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = path.empty() ? "it comes with torch's CUDA wheels" : ::dlerror();
    return Error{ErrorCode::kUnsupported,
                 fmt::format("CUPTI ({}) cannot be loaded: {}", path.empty() ? "libcupti.so" : path, why)};
  }
  CuptiLibrary found;
  if (!found.look_up(library)) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{} is no CUPTI of CUDA 11 or newer", path.empty() ? "libcupti.so" : path)};
  }
  return found;
}

bool CuptiLibrary::look_up(void* library) {
  find(library, "cuptiActivityFlushPeriod", flush_period);
  find(library, "cuptiActivityRegisterTimestampCallback", register_clock);
  find(library, "cuptiActivityEnableAllocationSource", enable_allocation_source);
  return find(library, "cuptiGetVersion", get_version) &&
         find(library, "cuptiGetResultString", get_result_string) &&
         find(library, "cuptiSubscribe", subscribe) && find(library, "cuptiUnsubscribe", unsubscribe) &&
         find(library, "cuptiActivityRegisterCallbacks", register_callbacks) &&
         find(library, "cuptiActivityEnable", enable) && find(library, "cuptiActivityDisable", disable) &&
         find(library, "cuptiActivityGetNextRecord", next_record) &&
         find(library, "cuptiActivityGetNumDroppedRecords", dropped_records) &&
         find(library, "cuptiActivityFlushAll", flush_all) && find(library, "cuptiGetTimestamp", get_timestamp);
}

Error CuptiLibrary::error(int result) const {
  switch (static_cast<CuptiResult>(result)) {
    case CuptiResult::kInUse:
      return {ErrorCode::kUnsupported, "CUPTI is in use by another profiler (torch.profiler, Nsight): one at a time"};
    case CuptiResult::kNotPermitted:
    case CuptiResult::kNotPermittedOnVirtualDevice:
      return {ErrorCode::kUnsupported,
              "the driver does not let this user profile: load it with NVreg_RestrictProfilingToAdminUsers=0"};
    default:
      break;
  }
  const char* name = nullptr;
  const bool is_named = get_result_string(result, &name) == 0 && name != nullptr;
  return {ErrorCode::kUnsupported, fmt::format("CUPTI refuses: {}", is_named ? name : std::to_string(result))};
}

}  // namespace ebbtide
