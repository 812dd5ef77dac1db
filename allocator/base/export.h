// Marks what other libraries of Ebbtide (the torch adaptors) link against; everything else is hidden.
#pragma once

#define EBBTIDE_EXPORT __attribute__((visibility("default")))
// Of a class that is exported: what only the library itself calls, and may so be inlined where it is called once.
#define EBBTIDE_LOCAL __attribute__((visibility("hidden")))
