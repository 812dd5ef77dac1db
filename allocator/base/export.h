// Marks what other libraries of Ebbtide (the torch adaptors) link against; everything else is hidden.
#pragma once

#define EBBTIDE_EXPORT __attribute__((visibility("default")))
