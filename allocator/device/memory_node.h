// Where host memory lies on machines with several memory nodes (NUMA).
#pragma once

#include <optional>
#include <string>

#include "allocator/base/units.h"

namespace ebbtide {

// Asks for pages of [place, place + bytes) that are touched from now on to lie on `node`, if it has
// room. A wish: where the system cannot, nothing happens. Requires: whole pages.
void prefer_memory_node(void* place, Bytes bytes, int node);

// The node of a PCI device, e.g. "0000:3b:00.0" (any case); absent when the system does not tell.
std::optional<int> memory_node_of_pci(const std::string& address);

}  // namespace ebbtide
