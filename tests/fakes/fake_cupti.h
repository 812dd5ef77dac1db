// A libcupti made by hand: the functions that profiler/cupti/ looks up, and those below, by which a test says what the
// GPU did. A library of its own, loaded by path like the real one.
//
// Records given to fake_cupti_add() wait; a flush writes them to buffers that it asks for, one record after the other,
// and hands these over. With no buffer it drops a record and counts it. It refuses what CUPTI refuses: a second
// subscriber, kinds before the callbacks are there.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Everything as after loading; what waits is forgotten.
void fake_cupti_reset(void);
// From now on the function with this name, without its prefix, returns `result`. `kind` is for "ActivityEnable": which
// one; 0: all.
void fake_cupti_fail(const char* function, std::uint32_t kind, int result);
// A record of `size` bytes, the first four its kind. Ignored, as by CUPTI, unless that kind is enabled.
void fake_cupti_add(const void* record, std::size_t size);
// As if its thread had looked: delivers what waits.
void fake_cupti_deliver(void);
void fake_cupti_set_version(std::uint32_t version);
// Bytes that it writes to one buffer at most; 0: all of it.
void fake_cupti_limit_buffers(std::size_t bytes);

int fake_cupti_is_subscribed(void);
int fake_cupti_is_enabled(std::uint32_t kind);
// By the clock that was registered, else by its own, which is 1000 seconds behind the steady clock.
std::uint64_t fake_cupti_now(void);

}  // extern "C"
