#include "hooks/torch_offload/python_calls.h"

#include <c10/util/Exception.h>

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "hooks/torch_offload/python_classes.h"
#include "hooks/torch_offload/saved_hooks.h"

namespace ebbtide::offload {
namespace {

thread_local std::string last_error;

template <class T>
T& object(void* address) {
  return *static_cast<T*>(address);
}

using Storages = std::shared_ptr<const std::unordered_set<StorageId>>;

class PythonRecorder {
 public:
  explicit PythonRecorder(Storages external)
      : external_(std::move(external)), recorder_(external_.get()), scope_(&recorder_) {}
  void end() { scope_.reset(); }
  Recorder& recorder() { return recorder_; }
  const Recorder& recorder() const { return recorder_; }

 private:
  Storages external_;
  Recorder recorder_;
  std::optional<HookScope> scope_;
};

ebbtide_status failed(ebbtide_status status, const char* what) {
  last_error = what;
  return status;
}

void take(Store& store, Recorder& recorder, const std::vector<LandingHandle>& landings,
          std::int64_t limit, ebbtide_saved* saved, ebbtide_status* status) {
  auto handed = recorder.hand_over_within(limit, store, landings);
  if (!handed) {
    *status = EBBTIDE_INFEASIBLE;
    return;
  }
  for (const auto& one : handed->saved) {
    saved->size_bytes += one->size_bytes();
    saved->swapped_bytes += one->swapped_bytes();
  }
  saved->occupied_bytes = handed->bytes;
  if (!handed->saved.empty()) {
    saved->batch = c10::make_intrusive<SavedBatch>(std::move(handed->saved)).release();
  }
}

}  // namespace
}  // namespace ebbtide::offload

using namespace ebbtide::offload;

void* ebbtide_storages_new(const void* const* addresses, size_t count) {
  return new Storages(
      std::make_shared<const std::unordered_set<StorageId>>(addresses, addresses + count));
}

void ebbtide_storages_free(void* storages) { delete static_cast<Storages*>(storages); }

void* ebbtide_recorder_begin(const void* storages) {
  try {
    install_engine();
    return new PythonRecorder(*static_cast<const Storages*>(storages));
  } catch (const std::exception& error) {
    last_error = error.what();
    return nullptr;
  }
}

void ebbtide_recorder_end(void* recorder) { object<PythonRecorder>(recorder).end(); }

void ebbtide_recorder_free(void* recorder) { delete static_cast<PythonRecorder*>(recorder); }

int64_t ebbtide_recorder_measure(const void* recorder, const void* const* elsewhere,
                                 size_t count) {
  const std::unordered_set<StorageId> storages(elsewhere, elsewhere + count);
  return static_cast<const PythonRecorder*>(recorder)->recorder().measure(storages);
}

ebbtide_status ebbtide_store_take(void* store, void* recorder, void* const* landings,
                                  size_t landing_count, int64_t limit, ebbtide_saved* saved) {
  *saved = {};
  const std::unique_ptr<PythonRecorder> ours(static_cast<PythonRecorder*>(recorder));
  ebbtide_status status = EBBTIDE_OK;
  try {
    std::vector<LandingHandle> handles;
    for (std::size_t i = 0; i < landing_count; ++i) {
      handles.push_back(object<PythonLanding>(landings[i]).landing);
    }
    take(object<Store>(store), ours->recorder(), handles, limit, saved, &status);
  } catch (const c10::OutOfMemoryError& error) {
    return failed(EBBTIDE_OUT_OF_DEVICE_MEMORY, error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return failed(EBBTIDE_SYSTEM, error.what_without_backtrace());
  } catch (const std::exception& error) {
    return failed(EBBTIDE_SYSTEM, error.what());
  }
  return status;
}

int ebbtide_saved_prefetch(void* batch) {
  try {
    return object<SavedBatch>(batch).prefetch();
  } catch (const std::exception&) {
    return 0;  // it is asked for again when it is needed, and fails there with its reason
  }
}

void ebbtide_saved_forget(void* batch) {
  c10::intrusive_ptr<SavedBatch>::reclaim(static_cast<SavedBatch*>(batch));
}

const char* ebbtide_saving_error(void) { return last_error.c_str(); }
