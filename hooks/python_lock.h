// Asking for Python's lock in a thread that may outlive the interpreter.
#pragma once

#include <cxxabi.h>
#include <unistd.h>

namespace ebbtide {

// Note [A thread that outlives the interpreter]
// A thread that asks for the lock while the interpreter ends never gets it: CPython before 3.14 ends the thread
// there, by unwinding its stack (pthread_exit), and the first destructor or noexcept function of C++ on that way
// terminates the process: "terminate called without an active exception". Asking whether it ends, before, leaves
// the moment between. So the unwinding goes no further than this, and the thread stands still for the little
// while that the process has left, as CPython does it since 3.14.
//
// Returns what `take` does, which takes the lock and throws nothing of its own.
template <typename Take>
auto take_python_lock(Take take) noexcept {
  try {
    return take();
  } catch (const abi::__forced_unwind&) {
    for (;;) ::pause();
  }
}

}  // namespace ebbtide
