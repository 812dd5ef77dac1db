/* What libebbtide_torch_store.so exports besides, for whoever looks whether it is all there: saves nothing. */
#include "hooks/torch_offload/python_calls.h"

#include <stddef.h>

void* ebbtide_storages_new(const void* const* addresses, size_t count) { return NULL; }
void ebbtide_storages_free(void* storages) {}
void* ebbtide_recorder_begin(const void* storages) { return NULL; }
void ebbtide_recorder_free(void* recorder) {}
int64_t ebbtide_recorder_measure(const void* recorder, const void* const* elsewhere, size_t count) { return 0; }
void ebbtide_recorder_end(void* recorder) {}
ebbtide_status ebbtide_store_take(void* store, void* recorder, void* const* landings, size_t landing_count,
                                  int64_t limit, ebbtide_saved* saved) {
  return EBBTIDE_UNSUPPORTED;
}
int ebbtide_saved_prefetch(void* batch) { return 0; }
void ebbtide_saved_forget(void* batch) {}
const char* ebbtide_saving_error(void) { return "a stand-in saves nothing"; }
