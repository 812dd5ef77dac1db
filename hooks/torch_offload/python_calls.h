/* What Python calls for each part of a piece, through ctypes: a call of a class of torch's costs ten times
 * as much, and would be most of what saving costs the host.
 *
 * Objects are opaque pointers. Stores and landings belong to classes of torch's, whose address() tells them
 * (python_classes.h): the caller keeps them alive. Of the others what a function makes another one frees.
 * None of these takes Python's lock or needs it. Not thread-safe for one object. */
#ifndef EBBTIDE_TORCH_OFFLOAD_PYTHON_CALLS_H_
#define EBBTIDE_TORCH_OFFLOAD_PYTHON_CALLS_H_

#include "hooks/ebbtide.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All that a recorder handed over. */
typedef struct ebbtide_saved {
  void* batch; /* to be forgotten; null: nothing was left to save */
  int64_t size_bytes;
  int64_t swapped_bytes;  /* of them, how many leave the device */
  int64_t occupied_bytes; /* that they take in a store, whole places */
  int64_t is_asked;       /* for the caller's use */
} ebbtide_saved;

/* Storages that live on beside what is saved, by their addresses (StorageImpl). */
EBBTIDE_API void* ebbtide_storages_new(const void* const* addresses, size_t count);
EBBTIDE_API void ebbtide_storages_free(void* storages);

/* A new recorder: from here to end(), in one thread, what autograd saves goes through it. Null:
 * ebbtide_saving_error() says why. The storages may be freed before it. */
EBBTIDE_API void* ebbtide_recorder_begin(const void* storages);
EBBTIDE_API void ebbtide_recorder_end(void* recorder);
/* One that take() has not freed. */
EBBTIDE_API void ebbtide_recorder_free(void* recorder);
/* Bytes of a store that take() would need, but for those of storages that are elsewhere. */
EBBTIDE_API int64_t ebbtide_recorder_measure(const void* recorder, const void* const* elsewhere,
                                             size_t count);
/* Hands over what was recorded, and frees the recorder; views of the landings are only noted.
 * EBBTIDE_INFEASIBLE: it would take more than `limit` bytes, and nothing has moved.
 * EBBTIDE_OUT_OF_DEVICE_MEMORY, EBBTIDE_SYSTEM: ebbtide_saving_error() says why; a tensor was changed in
 * place, for instance. */
EBBTIDE_API ebbtide_status ebbtide_store_take(void* store, void* recorder, void* const* landings,
                                              size_t landing_count, int64_t limit,
                                              ebbtide_saved* saved);
/* Asks for all of it early. Whether it is there, or on its way now: then there is nothing to ask again. */
EBBTIDE_API int ebbtide_saved_prefetch(void* batch);
/* What nobody else needs is forgotten. */
EBBTIDE_API void ebbtide_saved_forget(void* batch);
/* Of the last call of this thread that failed. */
EBBTIDE_API const char* ebbtide_saving_error(void);

#ifdef __cplusplus
}
#endif

#endif /* EBBTIDE_TORCH_OFFLOAD_PYTHON_CALLS_H_ */
