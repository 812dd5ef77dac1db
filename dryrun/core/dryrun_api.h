/* The simulated devices as seen by tests and benchmarks: plain C, for ctypes.
 *
 * Found in the process through ctypes.CDLL(None) when the stand-ins are preloaded. A wrong device
 * index answers -1. Every function may be called from any thread.
 */
#ifndef EBBTIDE_DRYRUN_CORE_DRYRUN_API_H_
#define EBBTIDE_DRYRUN_CORE_DRYRUN_API_H_

#include <stddef.h>
#include <stdint.h>

#include "dryrun/core/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes taken from a device (cudaMalloc and physical memory): now, at most, and how many there are.
 */
EBBTIDE_DRYRUN_API int64_t ebbtide_dryrun_used(int device);
EBBTIDE_DRYRUN_API int64_t ebbtide_dryrun_peak(int device);
EBBTIDE_DRYRUN_API int64_t ebbtide_dryrun_capacity(int device);
EBBTIDE_DRYRUN_API int ebbtide_dryrun_reset_peak(int device);
EBBTIDE_DRYRUN_API int ebbtide_dryrun_device_count(void);

/* A counter by its name in the JSON report, e.g. "mallocs", "maps", "uncomputed_reads"; -1: no
 * such. */
EBBTIDE_DRYRUN_API int64_t ebbtide_dryrun_counter(const char* name);

/* What a range holds: 0 not computed, 1 derived from what was not, 2 computed. */
EBBTIDE_DRYRUN_API int ebbtide_dryrun_content(const void* pointer, size_t size);

/* Device memory holds these bytes from now on, as values derived from what was not computed. Takes no
 * virtual time. -1: not memory of a simulated device. */
EBBTIDE_DRYRUN_API int ebbtide_dryrun_put(void* target, const void* source, size_t size);

/* Called when the program is ended after its last step (EBBTIDE_DRYRUN_STEPS): its own handlers
 * at exit are not. One at a time; NULL: none. */
EBBTIDE_DRYRUN_API void ebbtide_dryrun_at_end(void (*call)(void));

/* The nth call from now on of these kinds (a sum: 1 device memory, 2 events, 4 copies, 8 pinning) fails,
 * once; 0: none does. Then: how many such calls there have been since. */
EBBTIDE_DRYRUN_API void ebbtide_dryrun_fail(int64_t nth, unsigned kinds);
EBBTIDE_DRYRUN_API int64_t ebbtide_dryrun_fallible_calls(void);

/* The JSON report as it would be written now. Writes at most `capacity` bytes with the final zero
 * and returns the length without it, as snprintf does. */
EBBTIDE_DRYRUN_API size_t ebbtide_dryrun_report(char* buffer, size_t capacity);

/* What is wrong with the first EBBTIDE_DRYRUN_* variable that cannot be read, in a line; "": all can be. Simulates nothing.
 * Writes and returns as above. */
EBBTIDE_DRYRUN_API size_t ebbtide_dryrun_settings_problem(char* buffer, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif /* EBBTIDE_DRYRUN_CORE_DRYRUN_API_H_ */
