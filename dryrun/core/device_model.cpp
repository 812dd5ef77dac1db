#include "dryrun/core/device_model.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

namespace ebbtide::dryrun {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Reads one device file key by key. Keeps the first complaint; after it everything reads as zero.
class DeviceFile {
 public:
  DeviceFile(std::string path, const Json& root) : path_(std::move(path)), root_(root) {}

  const std::string& complaint() const { return complaint_; }

  double number(const char* pointer, double least, double most) {
    const Json* value = find(pointer);
    if (value == nullptr) return 0;
    const double found = value->is_number() ? value->get<double>() : std::nan("");
    if (found >= least && found <= most) return found;
    complain(pointer, "must be a number from " + text(least) + " to " + text(most));
    return 0;
  }
  // A rate, e.g. bytes in one second: from one on.
  double rate(const char* pointer) { return number(pointer, 1, 1e21); }
  double share(const char* name) {
    return number(("/efficiency/" + std::string(name) + "/value").c_str(), 1e-6, 1);
  }
  // Of a key that a file need not have.
  double share_or(const char* name, double otherwise) {
    const Json::json_pointer where("/efficiency/" + std::string(name));
    return root_.contains(where) ? share(name) : otherwise;
  }
  double seconds(const char* name) {
    return number(("/overhead_seconds/" + std::string(name) + "/value").c_str(), 0, 1);
  }
  int integer(const char* pointer, int least = 1, int most = std::numeric_limits<int>::max()) {
    const double found = number(pointer, least, most);
    if (found != std::floor(found)) complain(pointer, "must be a whole number");
    return static_cast<int>(found);
  }
  std::string string(const char* pointer) {
    const Json* value = find(pointer);
    if (value == nullptr) return {};
    if (value->is_string() && !value->get<std::string>().empty()) return value->get<std::string>();
    complain(pointer, "must be a text");
    return {};
  }

 private:
  static std::string text(double value) {
    std::string written = Json(value).dump();
    return written.ends_with(".0") ? written.substr(0, written.size() - 2) : written;
  }
  // "/memory_bytes" is written memory_bytes, "/efficiency/matrix/value" efficiency.matrix.value.
  void complain(const std::string& pointer, const std::string& what) {
    std::string key = pointer.substr(1);
    std::ranges::replace(key, '/', '.');
    if (complaint_.empty()) complaint_ = path_ + ": " + key + " " + what;
  }
  const Json* find(const char* pointer) {
    const Json::json_pointer where(pointer);
    if (root_.contains(where)) return &root_.at(where);
    complain(pointer,
             "is missing: copy it from the file of a similar device in " + device_folder());
    return nullptr;
  }

  std::string path_;
  const Json& root_;
  std::string complaint_;
};

DeviceSpeed read_speed(DeviceFile& file) {
  DeviceSpeed speed;
  for (std::size_t i = 0; i < kNumberNames.size(); ++i) {
    speed.peak_flops[i] = file.rate(("/peak_flops/" + std::string(kNumberNames[i])).c_str());
  }
  speed.memory_bandwidth = file.rate("/memory_bandwidth");
  speed.to_host = file.rate("/host_link/to_host");
  speed.to_device = file.rate("/host_link/to_device");
  speed.devices_per_link = file.integer("/host_link/devices_per_link");
  speed.peer_bandwidth = file.rate("/peer_link/bandwidth");
  speed.devices_per_node = file.integer("/node/devices", 1, kMaxDevices);
  speed.network_bandwidth = file.rate("/node/network");
  speed.peer_channels = file.integer("/peer_link/channels/value", 0, kMostChannels);
  speed.network_channels = file.integer("/node/channels/value", 0, kMostChannels);
  speed.matrix = file.share("matrix");
  speed.matrix_rows_4 = file.share("matrix_rows_4");
  speed.matrix_rows_2 = file.share("matrix_rows_2");
  speed.attention_forward = file.share("attention_forward");
  speed.attention_backward = file.share("attention_backward");
  speed.cudnn_attention_forward =
      file.share_or("cudnn_attention_forward", speed.attention_forward);
  speed.cudnn_attention_backward =
      file.share_or("cudnn_attention_backward", speed.attention_backward);
  speed.memory = file.share("memory");
  speed.host_link = file.share("host_link");
  speed.host_link_both = file.share("host_link_both");
  speed.host_link_pageable = file.share("host_link_pageable");
  speed.peer_link = file.share("peer_link");
  speed.network = file.share("network");
  speed.operator_seconds = file.seconds("operator");
  speed.kernel_seconds = file.seconds("kernel");
  speed.element_seconds = file.seconds("element");
  speed.copy_seconds = file.seconds("copy");
  speed.collective_seconds = file.seconds("collective");
  speed.peer_hop_seconds = file.seconds("peer_hop");
  speed.network_hop_seconds = file.seconds("network_hop");
  return speed;
}

DeviceModel read_model(DeviceFile& file) {
  DeviceModel model;
  model.name = file.string("/name");
  model.major = file.integer("/compute_capability/0");
  model.minor = file.integer("/compute_capability/1", 0);
  model.multiprocessors = file.integer("/multiprocessors");
  model.memory = Bytes{static_cast<std::int64_t>(file.number("/memory_bytes", 1 << 20, 1e14))};
  model.l2_bytes = file.integer("/l2_bytes");
  model.shared_bytes_per_block_optin = file.integer("/shared_bytes_per_block");
  model.shared_bytes_per_multiprocessor = file.integer("/shared_bytes_per_multiprocessor");
  model.max_threads_per_multiprocessor = file.integer("/threads_per_multiprocessor");
  model.max_blocks_per_multiprocessor = file.integer("/blocks_per_multiprocessor");
  model.clock_khz = file.integer("/clock_khz");
  model.memory_clock_khz = file.integer("/memory_clock_khz");
  model.memory_bus_bits = file.integer("/memory_bus_bits");
  model.speed = read_speed(file);
  model.speed.multiprocessors = model.multiprocessors;
  model.speed.l2_bytes = model.l2_bytes;
  return model;
}

std::string known_options(const std::string& folder) {
  std::vector<std::string> options;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".json") options.push_back(entry.path().stem().string());
  }
  std::ranges::sort(options);
  std::string text;
  for (const std::string& option : options) text += option + ", ";
  return text + "or the path of a device file (.json)";
}

Error wrong(const std::string& message) { return Error{ErrorCode::kInvalidArgument, message}; }

}  // namespace

std::string device_folder() {
  const char* chosen = std::getenv("EBBTIDE_DRYRUN_DEVICES");
  if (chosen != nullptr && *chosen != '\0') return chosen;
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&device_folder), &info) == 0) return "devices";
  return fs::path(info.dli_fname).parent_path() / "devices";
}

Result<DeviceModel> load_device_model(std::string_view option, const std::string& folder) {
  const bool is_path = option.ends_with(".json");
  const fs::path path =
      is_path ? fs::path(option) : fs::path(folder) / (std::string(option) + ".json");
  std::ifstream stream(path);
  if (!stream) {
    if (is_path) return wrong(path.string() + ": no such device file");
    return wrong("unknown device; allowed: " + known_options(folder));
  }
  const Json root = Json::parse(stream, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return wrong(path.string() + ": not a JSON object");
  DeviceFile file(path.string(), root);
  DeviceModel model = read_model(file);
  if (!file.complaint().empty()) return wrong(file.complaint());
  model.option = path.stem().string();
  return model;
}

void write_uuid(int device, char (&uuid)[16]) {
  constexpr char kText[] = "ebbtide-dryrun";
  std::memcpy(uuid, kText, sizeof kText);
  uuid[14] = static_cast<char>('0' + device / 10);
  uuid[15] = static_cast<char>('0' + device % 10);
}

}  // namespace ebbtide::dryrun
