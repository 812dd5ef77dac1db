// How an adaptor begins its work in a program that links it or has it preloaded.
#pragma once

#include "allocator/base/result.h"

namespace ebbtide {

struct StartupAdaptor {
  const char* kind;     // "cpu" or "cuda", as in EBBTIDE_DEVICES
  Status (*install)();  // may throw what torch throws
};

// Installs the adaptor if EBBTIDE asks for it, the program brought torch along by itself, and this
// kind of memory is the one to be planned. What is wrong becomes one line, and the program goes on
// without Ebbtide; with EBBTIDE_STRICT=1 it ends with status 2.
//
// Called once per adaptor while the program's libraries are initialised: one thread, and whatever
// the adaptor is linked with (libc10, libc10_cuda) is initialised already. Makes no CUDA call.
void start_torch_adaptor(const StartupAdaptor& adaptor) noexcept;

}  // namespace ebbtide
