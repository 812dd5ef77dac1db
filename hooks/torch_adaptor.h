/* What the torch adaptors export: loaded after torch, by Python or by a linked program. */
#ifndef EBBTIDE_TORCH_ADAPTOR_H_
#define EBBTIDE_TORCH_ADAPTOR_H_

#include "hooks/ebbtide.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The torch version this adaptor was built against, e.g. "2.11.0". */
EBBTIDE_API const char* ebbtide_torch_version(void);
/* Puts the engine in front of torch's CPU (CUDA) allocator. A second call does nothing. Not thread-safe
 * against allocation: call it at start-up. EBBTIDE_UNSUPPORTED, with the reason, when it must not be. */
EBBTIDE_API ebbtide_status ebbtide_torch_cpu_install(void);
EBBTIDE_API ebbtide_status ebbtide_torch_cuda_install(void);

#ifdef __cplusplus
}
#endif

#endif /* EBBTIDE_TORCH_ADAPTOR_H_ */
