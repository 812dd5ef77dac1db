#include "hooks/torch_offload/options.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <cstdlib>
#include <regex>
#include <sstream>
#include <stdexcept>

#include "hooks/torch_offload/host_memory.h"

namespace ebbtide::offload {
namespace {

constexpr std::int64_t kLeastBareBytes = 4096;  // without a unit; less than a page is no budget

template <typename Value>
[[noreturn]] void refuse(const char* name, const Value& value, const std::string& allowed) {
  std::ostringstream text;
  text << "ebbtide offload: " << name << "=" << value << ": allowed is " << allowed;
  throw std::invalid_argument(text.str());
}

// Written so that what is no number is refused, too.
void check_share(const char* name, double value, const char* meaning) {
  if (!(value >= 0 && value <= 1)) {
    refuse(name, value, std::string("a number from 0 to 1, ") + meaning);
  }
}

void check_weight(const char* name, double value, const char* meaning) {
  if (!(value >= 0 && value < 1e300)) refuse(name, value, meaning);
}

std::string gib(std::int64_t bytes) {
  std::ostringstream text;
  text.precision(1);
  text << std::fixed << static_cast<double>(bytes) / (1 << 30) << " GiB";
  return text.str();
}

// "110GiB", "1.5TB", "1048576"; as python_shim/ebbtide/_sizes.py reads them.
std::optional<std::int64_t> parse_size(const std::string& text) {
  static const std::regex form(R"(\s*(\d+(?:\.\d+)?) ?(?:B|([KMGT])(i?)B)?\s*)");
  std::smatch found;
  if (!std::regex_match(text, found, form)) return std::nullopt;
  long double bytes = std::stold(found[1]);
  const std::string prefix = found[2];
  const auto power = prefix.empty() ? 0 : std::string("KMGT").find(prefix) + 1;
  for (std::size_t i = 0; i < power; ++i) bytes *= found[3].length() > 0 ? 1024 : 1000;
  if (!(bytes < 0x1p62L)) return std::nullopt;
  return static_cast<std::int64_t>(bytes);
}

// An empty value counts as unset.
std::optional<std::int64_t> size_in_environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || std::string(value).find_first_not_of(" \t\n") == std::string::npos) {
    return std::nullopt;
  }
  const auto bytes = parse_size(value);
  if (!bytes) refuse(name, value, "a size, such as 110GiB or a number of bytes");
  const bool has_no_unit = std::string(value).find_first_not_of("0123456789. \t\n") == std::string::npos;
  if (has_no_unit && *bytes > 0 && *bytes < kLeastBareBytes) refuse(name, value, "a size with a unit, such as 110GiB");
  return bytes;
}

}  // namespace

void check(const Options& options, at::Device device) {
  check_share("alpha", options.alpha, "the share of tokens whose activations are swapped");
  if (options.alpha_rule != AlphaRule::kGiven && options.alpha != 0) {
    refuse("alpha", options.alpha, "0 where alpha_rule chooses it (kMemo, kAuto)");
  }
  if (options.mini_sequence < 0) {
    refuse("mini_sequence", options.mini_sequence, "a number of tokens, or 0 (chosen from bytes)");
  }
  if (options.keep_last < 0) refuse("keep_last", options.keep_last, "a number of layers from 0");
  if (options.hbm && *options.hbm < 0) refuse("hbm", *options.hbm, "a number of bytes");
  if (options.host && *options.host < 0) refuse("host", *options.host, "a number of bytes");
  if (options.host && *options.host > host_memory()) {
    refuse("host", gib(*options.host), "up to " + gib(host_memory()) + ", this machine's memory");
  }
  if (!device.is_cpu() && !device.is_cuda()) refuse("device", device, "a CPU or CUDA device");
}

Options with_environment(Options options) {
  if (!options.hbm) options.hbm = size_in_environment("EBBTIDE_HBM");
  if (!options.host) options.host = size_in_environment("EBBTIDE_HOST");
  return options;
}

void check(const LossOptions& options) {
  check_share("label_smoothing", options.label_smoothing, "the share given to all other words");
  check_weight("z_loss", options.z_loss, "a weight from 0, such as 1e-4");
  check_weight("softcap", options.softcap, "a bound of the logits, such as 30, or 0 for none");
  if (options.divisor && !(*options.divisor > 0)) {
    refuse("divisor", *options.divisor, "a number of tokens above 0");
  }
}

std::int64_t device_memory(at::Device device) {
  if (device.is_cpu()) return host_memory();
  const auto [free, total] = c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index());
  return static_cast<std::int64_t>(total);
}

}  // namespace ebbtide::offload
