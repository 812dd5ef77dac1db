#include "allocator/device/memory_node.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <climits>
#include <fstream>

namespace ebbtide {
namespace {

// From the kernel's interface (mempolicy.h, which libc does not have).
constexpr int kPreferred = 1;  // MPOL_PREFERRED: that node first, any other when it is full
constexpr int kMaxNode = static_cast<int>(sizeof(unsigned long) * CHAR_BIT);

}  // namespace

void prefer_memory_node(void* place, Bytes bytes, int node) {
  if (node < 0 || node >= kMaxNode) return;
  const unsigned long nodes = 1UL << node;
  ::syscall(SYS_mbind, place, static_cast<unsigned long>(bytes.value), kPreferred, &nodes,
            static_cast<unsigned long>(kMaxNode) + 1, 0U);
}

std::optional<int> memory_node_of_pci(const std::string& address) {
  std::string name = address;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  std::ifstream file("/sys/bus/pci/devices/" + name + "/numa_node");
  int node = -1;
  if (!(file >> node) || node < 0) return std::nullopt;
  return node;
}

}  // namespace ebbtide
