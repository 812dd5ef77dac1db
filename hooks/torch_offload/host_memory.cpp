#include "hooks/torch_offload/host_memory.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <regex>
#include <string>

namespace ebbtide::offload {
namespace {

constexpr double kShareOfAvailable = 0.75;  // the program's own host memory grows, too
constexpr std::int64_t kSimulatedBytes = std::int64_t{1} << 46;

bool is_simulated() { return ::dlsym(RTLD_DEFAULT, "ebbtide_dryrun_peak") != nullptr; }

std::int64_t pages_in_bytes(int name) {
  return static_cast<std::int64_t>(::sysconf(name)) * ::sysconf(_SC_PAGESIZE);
}

}  // namespace

std::int64_t host_memory() {
  if (is_simulated()) return kSimulatedBytes;
  std::int64_t bytes = pages_in_bytes(_SC_PHYS_PAGES);
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    std::int64_t limit = 0;
    if (file >> limit) bytes = std::min(bytes, limit);  // else absent, or "max"
  }
  return bytes;
}

std::optional<std::int64_t> available_memory(std::istream& meminfo) {
  const std::regex wanted(R"(MemAvailable:\s*(\d+) kB)");
  std::smatch found;
  for (std::string line; std::getline(meminfo, line);) {
    if (std::regex_match(line, found, wanted)) return std::stoll(found[1]) << 10;
  }
  return std::nullopt;
}

std::int64_t default_host_budget() {
  std::ifstream meminfo("/proc/meminfo");
  const std::int64_t available =
      available_memory(meminfo).value_or(pages_in_bytes(_SC_AVPHYS_PAGES));
  return static_cast<std::int64_t>(kShareOfAvailable *
                                   static_cast<double>(std::min(available, host_memory())));
}

}  // namespace ebbtide::offload
